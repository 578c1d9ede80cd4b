"""TrainerConfig, medkit's twelve fields, and Options, what medkit lacks."""

from __future__ import annotations

import dataclasses
import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

_Check = Callable[[Any], Any]


class _RefusedError(Exception):
    """Carries what was expected of a field; `validate` turns it into a ValueError."""


def integer(minimum: int) -> _Check:
    """Return the check of an integer field."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
            raise _RefusedError(f"an integer of at least {minimum}")
        return int(value)

    return check


def _number(minimum: float, *, above: bool = False) -> _Check:
    def check(value: Any) -> float:
        bound = f"a finite number {'above' if above else 'of at least'} {minimum:g}"
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise _RefusedError(bound)
        try:
            number = float(value)
        except OverflowError:  # an integer beyond every float
            number = math.inf
        if not math.isfinite(number) or number < minimum or (above and number == minimum):
            raise _RefusedError(bound)
        return number

    return check


def flag(value: Any) -> bool:
    """Check a field that is True or False."""
    if not isinstance(value, bool):
        raise _RefusedError("True or False")
    return value


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise _RefusedError("a non-empty string")
    return value


def _path(value: Any) -> str | Path:
    if not isinstance(value, str | Path) or not str(value):
        raise _RefusedError("a path, as a string or a pathlib.Path")
    return value


def one_of(*allowed: str) -> _Check:
    """Return the check of a field with few values."""

    def check(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise _RefusedError(f"one of {', '.join(map(repr, allowed))}")
        return value

    return check


def _optional(check: _Check) -> _Check:
    def check_unless_none(value: Any) -> Any:
        try:
            return None if value is None else check(value)
        except _RefusedError as refused:
            raise _RefusedError(f"None or {refused}") from None

    return check_unless_none


def _seed(value: Any) -> int:
    seed = integer(0)(value)
    if seed >= 2**63:
        raise _RefusedError("an integer of at least 0 and below 2**63")
    return seed


def _warmup(value: Any) -> int | float:
    if isinstance(value, float) and 0 <= value < 1:
        return value
    try:
        return integer(0)(value)
    except _RefusedError:
        raise _RefusedError(
            "a number of steps, or a fraction of them from 0.0 to below 1.0"
        ) from None


def _ladder(value: Any) -> tuple[int, ...]:
    expected = _RefusedError("increasing lengths of at least 1, for instance (32, 64, 128)")
    try:
        lengths = tuple(integer(1)(length) for length in value)
    except (TypeError, _RefusedError):
        raise expected from None
    if not lengths or any(a >= b for a, b in itertools.pairwise(lengths)):
        raise expected
    return lengths


def _fills(value: Any) -> dict[str, float | None]:
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and (fill is None or isinstance(fill, numbers.Real))
        for name, fill in value.items()
    ):
        raise _RefusedError("a mapping of column names to the number that pads them, or None")
    return dict(value)


def validate(record: Any, checks: dict[str, _Check]) -> None:
    """Check fields of a frozen dataclass; ValueError names field, value and what is allowed."""
    for name, check in checks.items():
        value = getattr(record, name)
        try:
            object.__setattr__(record, name, check(value))
        except _RefusedError as refused:
            msg = f"{type(record).__name__}.{name} is {value!r}; expected {refused}"
            raise ValueError(msg) from None


@dataclasses.dataclass(frozen=True)
class TrainerConfig:
    """How to train: medkit's fields, in medkit's order, with medkit's defaults.

    Attributes
    ----------
    output_dir : str or Path
        Folder of the checkpoints; made when missing, parents included.
    learning_rate : float
        Initial learning rate.
    nb_training_epochs : int
        Number of passes over the training data.
    dataloader_nb_workers : int
        Processes that preprocess; 0 preprocesses in a thread of this one.
    batch_size : int
        Rows of a batch, over all devices and hosts together.
    seed : int, optional
        Seed of data order and dropout. None draws one, which the checkpoints record.
    gradient_accumulation_steps : int
        Batches whose gradients make one update.
    do_metrics_in_training : bool
        Whether the metrics computer also runs on the training batches.
    metric_to_track_lr : str
        Evaluation metric that a reduce-on-plateau schedule follows.
    checkpoint_period : int
        Epochs between checkpoints; 0 saves after the last epoch only.
    checkpoint_metric : str
        Evaluation metric that makes a checkpoint the best one.
    minimize_checkpoint_metric : bool
        Whether a lower `checkpoint_metric` is better.

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
        """Return every field but `output_dir`, in order: what `trainer_config.yml` holds."""
        fields = dataclasses.asdict(self)
        del fields["output_dir"]
        return fields


_CONFIG_CHECKS: dict[str, _Check] = {
    "output_dir": _path,
    "learning_rate": _number(0.0),
    "nb_training_epochs": integer(1),
    "dataloader_nb_workers": integer(0),
    "batch_size": integer(1),
    "seed": _optional(_seed),
    "gradient_accumulation_steps": integer(1),
    "do_metrics_in_training": flag,
    "metric_to_track_lr": _name,
    "checkpoint_period": integer(0),
    "checkpoint_metric": _name,
    "minimize_checkpoint_metric": flag,
}


_LADDER = (16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 192, 256, 384, 512)


@dataclasses.dataclass(frozen=True)
class Options:
    """What medkit's configuration lacks; the defaults change no number of a run.

    Attributes
    ----------
    max_grad_norm : float, optional
        Gradients with a larger global norm are scaled down to it; those of frozen parameters
        (see `weight_decay`) do not count.
    weight_decay : float
        Decoupled decay per update, as AdamW's, of all parameters but biases and normalisation
        scales (see `medjax.optimizer.decays`) and frozen ones. It adds to what the component's
        optimizer decays. Frozen is a parameter whose update from the component's optimizer is zero
        by construction, whatever gradients, rate and count of updates are: through
        ``optax.set_to_zero`` under `optax.partition`, `optax.masked`, `optax.freeze` or
        `optax.selective_transform`, or a factor of 0. A rate of 0 during a warm-up freezes nothing,
        nor does ``jax.lax.stop_gradient`` in `forward`.
    warmup_steps : int or float
        Updates, or the fraction of all updates, during which the learning rate rises from 0.
    early_stopping_patience : int, optional
        Stop after this many evaluations in a row that did not improve `checkpoint_metric`.
    early_stopping_threshold : float
        Change of the metric below which an evaluation is no improvement.
    max_steps : int, optional
        Stop after this many updates.
    precision : {"float32", "bfloat16"}
        Type of the computation; parameters and optimizer state stay float32.
    loss_arithmetic : {"exact", "medkit"}
        "exact" weighs every label alike, whatever batch it is in; "medkit" averages the means of
        batches and divides the training loss by the accumulation steps, as medkit does.
    on_non_finite : {"stop", "skip"}
        What to do with a batch whose loss or gradient is not finite: stop with an error, or leave
        it out as if it had not been there, its outputs included.
    max_skipped : int
        Batches left out in a row after which "skip" stops as well.
    length_ladder : tuple of int
        Lengths that ragged columns are padded to.
    length_window : int
        Batches that are grouped by length together; 0 keeps the uniform order.
    padding : mapping of str to float or None
        Columns padded to the ladder besides the Hugging Face ones, and the value that pads them;
        None leaves a Hugging Face column as it is, for instance multi-label ``labels``.
    max_shapes : int
        Distinct batch shapes, each of which costs a compilation, before the run stops.
    cache_preprocessed : bool
        Whether preprocessed items are kept in memory, so that each is preprocessed once.
    prefetch : int
        Batches prepared ahead of the device, in a thread where preparing them is slow.
    steps_per_dispatch : int
        Batches that are trained on in one call of the device, where they have the same shape. A
        tiny model, which computes for less time than a call takes, is then several times faster;
        callbacks, saves and signals come between calls. Scores in training, and a torch scheduler
        by step, need each step by itself, so they make it 1.
    compilation_cache : str, Path or None
        Folder in which compiled programs are kept for the next start; "auto" is
        ``~/.cache/medjax/xla``, None keeps none. With jaxlib 0.10.0 and 0.10.1 (Python 3.11),
        "auto" keeps none on CPUs: reading a program back prints pages of false alarms there.
    worker_timeout : float
        Seconds to wait for a worker process before it is reported as hanging.
    save_interval_steps : int, optional
        Batches between checkpoints within an epoch; None saves between epochs only.
    keep_all_checkpoints : bool
        Whether checkpoints other than the best and the last are kept.
    log_dir : str or Path, optional
        Folder for ``metrics.csv`` and ``metrics.jsonl``.

    Raises
    ------
    ValueError
        If a value is not allowed; the message names field, value and what is allowed.
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
    length_ladder: tuple[int, ...] = _LADDER
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

    def __post_init__(self) -> None:
        validate(self, _OPTION_CHECKS)
        interval, group = self.save_interval_steps, self.steps_per_dispatch
        if interval is not None and interval % group:
            msg = f"Options.save_interval_steps is {interval}; expected a multiple of "
            raise ValueError(f"{msg}steps_per_dispatch={group}, as saves come between dispatches")


_OPTION_CHECKS: dict[str, _Check] = {
    "max_grad_norm": _optional(_number(0.0, above=True)),
    "weight_decay": _number(0.0),
    "warmup_steps": _warmup,
    "early_stopping_patience": _optional(integer(1)),
    "early_stopping_threshold": _number(0.0),
    "max_steps": _optional(integer(1)),
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
    "compilation_cache": _optional(_path),
    "worker_timeout": _number(0.0, above=True),
    "save_interval_steps": _optional(integer(1)),
    "keep_all_checkpoints": flag,
    "log_dir": _optional(_path),
}
