"""TrainerConfig, which has medkit's twelve fields, and Options, for everything medkit lacks."""

from __future__ import annotations

import dataclasses
import itertools
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medjax.checks import (
    Check,
    RefusedError,
    file_path,
    finite,
    flag,
    integer,
    non_empty,
    one_of,
    optional,
    validate,
)

__all__ = ["Options", "TrainerConfig"]


def _seed(value: Any) -> int:
    seed = integer(0)(value)
    if seed >= 2**63:
        raise RefusedError("an integer of at least 0 and below 2**63")
    result: int = seed
    return result


def _warmup(value: Any) -> int | float:
    if isinstance(value, float) and 0 <= value < 1:
        return value
    try:
        result: int | float = integer(0)(value)
        return result
    except RefusedError:
        raise RefusedError(
            "a number of steps, or a fraction of them from 0.0 to below 1.0"
        ) from None


def _ladder(value: Any) -> tuple[int, ...] | str:
    if isinstance(value, str) and value == "fitted":
        return value
    expected = RefusedError(
        "'fitted', or increasing lengths of at least 1, for instance (32, 64, 128)"
    )
    try:
        lengths = tuple(integer(1)(length) for length in value)
    except (TypeError, RefusedError):
        raise expected from None
    if not lengths or any(a >= b for a, b in itertools.pairwise(lengths)):
        raise expected
    return lengths


def _fills(value: Any) -> dict[str, float | None]:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and (fill is None or isinstance(fill, numbers.Real))
        for name, fill in value.items()
    ):
        raise RefusedError("a mapping of column names to the number that pads them, or None")
    return dict(value)


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """Settings of a run: medkit's fields, in medkit's order, with medkit's defaults.

    Attributes
    ----------
    output_dir : str or Path
        Folder of the checkpoints; created if missing, with its parents.
    learning_rate : float
        Initial learning rate.
    nb_training_epochs : int
        Number of passes over the training data.
    dataloader_nb_workers : int
        Number of processes that preprocess the items; 0 preprocesses them in a thread of this
        process.
    batch_size : int
        Rows of a batch, over all devices and hosts together.
    seed : int, optional
        Seed of initialisation, data order and dropout. None draws one, which is stored in the
        checkpoints.
    gradient_accumulation_steps : int
        Number of batches whose gradients are combined in one update.
    do_metrics_in_training : bool
        Whether the metrics computer also runs on the training batches.
    metric_to_track_lr : str
        Evaluation metric that a reduce-on-plateau schedule monitors.
    checkpoint_period : int
        Number of epochs between checkpoints; 0 saves only after the last epoch.
    checkpoint_metric : str
        Evaluation metric that decides which checkpoint is the best.
    minimize_checkpoint_metric : bool
        Whether a lower `checkpoint_metric` is better. A warning tells if its name says otherwise.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names field, value and what is allowed.

    Examples
    --------
    >>> TrainerConfig("runs/ner", batch_size=0)
    Traceback (most recent call last):
    ValueError: TrainerConfig.batch_size is 0; expected an integer of at least 1
    """

    output_dir: str | Path
    learning_rate: float = 1e-5
    nb_training_epochs: int = 3
    dataloader_nb_workers: int = 0
    batch_size: int = 1
    seed: int | None = None
    gradient_accumulation_steps: int = 1
    do_metrics_in_training: bool = False
    metric_to_track_lr: str = "loss"
    checkpoint_period: int = 1
    checkpoint_metric: str = "loss"
    minimize_checkpoint_metric: bool = True

    def __post_init__(self) -> None:
        validate(self, _CONFIG_CHECKS)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields but `output_dir`, in order, as stored in `trainer_config.yml`.

        Examples
        --------
        >>> TrainerConfig("runs/ner", batch_size=16).to_dict()["batch_size"]
        16
        """
        fields = dataclasses.asdict(self)
        del fields["output_dir"]
        return fields


_CONFIG_CHECKS: dict[str, Check] = {
    "output_dir": file_path,
    "learning_rate": finite(0.0),
    "nb_training_epochs": integer(1),
    "dataloader_nb_workers": integer(0),
    "batch_size": integer(1),
    "seed": optional(_seed),
    "gradient_accumulation_steps": integer(1),
    "do_metrics_in_training": flag,
    "metric_to_track_lr": non_empty,
    "checkpoint_period": integer(0),
    "checkpoint_metric": non_empty,
    "minimize_checkpoint_metric": flag,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Settings that medkit's configuration lacks.

    Attributes
    ----------
    max_grad_norm : float, optional
        Gradients with a larger global norm are scaled down to it. The gradients of frozen
        parameters (see `weight_decay`) do not count.
    weight_decay : float
        Decoupled weight decay per update, as in AdamW, of all parameters except biases,
        normalisation scales, which are known by their names, and frozen parameters. It is applied
        in addition to any decay of the component's own optimizer, and at the rate of the run: an
        optimizer with other rates for some parameters, or a warm-up of its own, needs the decay
        inside it, as in ``optax.adamw``, for each of its groups. A parameter is frozen if the
        optimizer makes its update zero by construction, whatever the gradients, the rate and the
        number of updates are: with ``optax.set_to_zero`` under `optax.partition`, `optax.masked`,
        `optax.freeze` or `optax.selective_transform`, or with a factor of 0. Neither a rate of 0
        during a warm-up nor ``jax.lax.stop_gradient`` in `forward` freezes a parameter.
    warmup_steps : int or float
        Number of updates, or fraction of all updates, during which the learning rate rises from 0.
    early_stopping_patience : int, optional
        Stop after this many consecutive evaluations that did not improve `checkpoint_metric`.
    early_stopping_threshold : float
        A change of the metric counts as an improvement only if it is larger than this.
    max_steps : int, optional
        Stop after this many updates, those before a resume included. A batch that is skipped, or
        has no labels, counts as if it had made its update.
    precision : {"float32", "bfloat16"}
        Dtype of the computation; parameters and optimizer state stay float32.
    loss_arithmetic : {"exact", "medkit"}
        "exact" gives every label the same weight, whatever batch it is in; "medkit" averages the
        means of batches and divides the training loss by the accumulation steps, as medkit does.
        With "exact" and a `length_window`, `train` divides gradients by the number of labels that
        an update usually has, so that an update on short items, which has fewer, counts less.
        Without a `length_window`, or with an optimizer that depends on the loss, it divides by the
        number of labels of the update, as torch's mean does.
    on_non_finite : {"stop", "skip"}
        What to do with a batch whose loss or gradient is not finite: stop with an error, or skip
        it and its outputs, as if it had not been there. After each epoch a warning says how many
        were skipped.
    max_skipped : int
        Number of consecutive batches that "skip" may skip before the run stops with an error.
    length_ladder : tuple of int or "fitted"
        Lengths that ragged columns are padded to. "fitted" chooses them from the lengths of the
        items (of a sample of 512 if there are more) so that compiling and computing take the least
        time together, for training and evaluation separately. They are
        stored in the checkpoints. A longer item then adds a length, with a warning; with a
        tuple it is an error.
    length_window : int
        Number of batches within which items of the same padded length are grouped; 0 keeps the
        uniform random order.
    padding : mapping of str to float or None
        Columns to pad to the ladder in addition to the Hugging Face ones, and the values that pad
        them. None leaves a Hugging Face column as it is, for instance multi-label ``labels``.
    max_shapes : int
        Number of distinct batch shapes, each of which costs a compilation, before the run stops.
    cache_preprocessed : bool
        Whether preprocessed items are kept in memory, so each is preprocessed only once.
    prefetch : int
        Number of batches prepared ahead of the device, in a thread if preparing them is slow.
    steps_per_dispatch : int
        Number of batches, of the same shape, to train on in one call to the device. This makes tiny
        models, whose steps take less time than a call, several times faster. Callbacks, saves and
        signals are handled between calls. It is 1 if training scores are computed or a torch
        scheduler is stepped with every update, as these need each step separately.
    compilation_cache : str, Path or None
        Folder in which compiled programs are stored for later runs; "auto" is
        ``~/.cache/medjax/xla``, None stores nothing. With jaxlib 0.10.0 and 0.10.1 (Python 3.11),
        "auto" stores nothing on CPUs, where loading a program prints long, false warnings.
    worker_timeout : float
        Seconds to wait for a worker process before it is reported as hanging.
    save_interval_steps : int, optional
        Number of batches between checkpoints within an epoch; None saves only between epochs.
    keep_all_checkpoints : bool
        Whether checkpoints other than the best and the last are kept.
    log_dir : str or Path, optional
        Folder for ``metrics.csv`` and ``metrics.jsonl``.
    deterministic : bool
        Whether a GPU adds up in the same order in every run, without which a resumed run is equal
        only up to rounding; CPUs and TPUs always do. A step of BERT-base takes a quarter
        longer with it on an H200, and cuDNN's attention is excluded.
    verify : bool, optional
        Whether loss and outputs of the first batch are compared with the CPU's in float32 before
        training; by default on accelerators only.
    verify_padding : bool
        Whether the loss of a few items is compared, before training and by `evaluate`, with what it
        is when rows and tokens of padding are added, if the component is not one of medjax's own.
        One that counts padding on purpose needs False.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names the field, its value and what is allowed.

    Examples
    --------
    >>> Options(max_grad_norm=1.0, warmup_steps=0.1).precision
    'float32'
    >>> Options(precision="float16")
    Traceback (most recent call last):
    ValueError: Options.precision is 'float16'; expected one of 'float32', 'bfloat16'
    """

    max_grad_norm: float | None = None
    weight_decay: float = 0.0
    warmup_steps: int | float = 0
    early_stopping_patience: int | None = None
    early_stopping_threshold: float = 0.0
    max_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    loss_arithmetic: Literal["exact", "medkit"] = "exact"
    on_non_finite: Literal["stop", "skip"] = "stop"
    max_skipped: int = 10
    length_ladder: tuple[int, ...] | Literal["fitted"] = "fitted"
    length_window: int = 100
    padding: Mapping[str, float | None] = dataclasses.field(default_factory=dict)
    max_shapes: int = 64
    cache_preprocessed: bool = False
    prefetch: int = 2
    steps_per_dispatch: int = 1
    compilation_cache: str | Path | None = "auto"
    worker_timeout: float = 300.0
    save_interval_steps: int | None = None
    keep_all_checkpoints: bool = False
    log_dir: str | Path | None = None
    deterministic: bool = True
    verify: bool | None = None
    verify_padding: bool = True

    def __post_init__(self) -> None:
        validate(self, _OPTION_CHECKS)
        interval, group = self.save_interval_steps, self.steps_per_dispatch
        if interval is not None and interval % group:
            msg = (
                f"Options.save_interval_steps is {interval}; expected a multiple of "
                f"steps_per_dispatch={group}, as checkpoints are saved between dispatches"
            )
            raise ValueError(msg)


_OPTION_CHECKS: dict[str, Check] = {
    "max_grad_norm": optional(finite(0.0, above=True)),
    "weight_decay": finite(0.0),
    "warmup_steps": _warmup,
    "early_stopping_patience": optional(integer(1)),
    "early_stopping_threshold": finite(0.0),
    "max_steps": optional(integer(1)),
    "precision": one_of("float32", "bfloat16"),
    "loss_arithmetic": one_of("exact", "medkit"),
    "on_non_finite": one_of("stop", "skip"),
    "max_skipped": integer(0),
    "length_ladder": _ladder,
    "length_window": integer(0),
    "padding": _fills,
    "max_shapes": integer(1),
    "cache_preprocessed": flag,
    "prefetch": integer(1),
    "steps_per_dispatch": integer(1),
    "compilation_cache": optional(file_path),
    "worker_timeout": finite(0.0, above=True),
    "save_interval_steps": optional(integer(1)),
    "keep_all_checkpoints": flag,
    "log_dir": optional(file_path),
    "deterministic": flag,
    "verify": optional(flag),
    "verify_padding": flag,
}
