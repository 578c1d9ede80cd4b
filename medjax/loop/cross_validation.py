"""Cross-validation: every item is scored once, by a model that was not trained on its group."""

from __future__ import annotations

import dataclasses
import difflib
import json
import logging
from collections.abc import Collection, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from medjax import sharding
from medjax.callbacks import EarlyStopping, as_callback_list
from medjax.checkpoint.columns_json import column_to_json, from_json
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset, expand, get_dataloader
from medjax.data.fitting import lengths_beyond
from medjax.data.sampling import Sampled
from medjax.loop.evaluate import evaluate
from medjax.loop.fold_identity import differences, identity_of_fold, settings_of_folds
from medjax.loop.folds import make_folds, tell_shared_texts
from medjax.loop.scores import Columns, in_order
from medjax.loop.train import train
from medjax.loop.trial import sample_columns
from medjax.metrics import DOCUMENT, GOLD, PAIR, Interval, MetricsComputer, bootstrap
from medjax.schedules import Schedule, as_schedule
from medjax.target import platform_of

__all__ = ["CrossValidation", "cross_validate"]

_FINISHED = "fold.json"

logger = logging.getLogger("medjax")


class CrossValidation(NamedTuple):
    """Scores of a component on data that it was not trained on.

    Attributes
    ----------
    scores : list of dict
        Scores of each fold, by name.
    columns : dict of str to list
        What the metrics computer extracted from all folds, in the order of the dataset where the
        columns name the documents.
    intervals : dict of str to Interval
        Scores of all items together, each predicted by the model of its fold, with 95 % intervals.
    folds : sequence of sequence of int
        Positions of the items that each fold held out, to train another model on the same folds.
    """

    scores: list[dict[str, float]]
    columns: Columns
    intervals: dict[str, Interval]
    folds: Sequence[Sequence[int]] = ()

    def mean(self, name: str) -> tuple[float, float]:
        """Return mean and standard deviation of a score over the folds.

        Raises
        ------
        ValueError
            If a fold lacks the score, as that of a label that does not occur there, or all do.

        Examples
        --------
        >>> CrossValidation([{"accuracy": 0.5}, {"accuracy": 1.0}], {}, {}).mean("accuracy")
        (0.75, 0.3535533905932738)
        """
        lacking = [number for number, each in enumerate(self.scores, start=1) if name not in each]
        if lacking:
            raise ValueError(_told_missing(name, lacking, self.scores))
        values = [scores[name] for scores in self.scores]
        return float(np.mean(values)), float(np.std(values, ddof=1))


def _told_missing(name: str, lacking: list[int], scores: list[dict[str, float]]) -> str:
    """Say what to do about a score that some folds lack."""
    if len(lacking) < len(scores):
        return (
            f"{name!r} is missing in the scores of {len(lacking)} of {len(scores)} folds, number "
            f"{', '.join(map(str, lacking))}: its label may not occur there. Take the interval of "
            f"all items together, intervals[{name!r}], average over the other folds by hand, or "
            "give strata, or fewer folds, so that it occurs in each"
        )
    known = sorted({name for each in scores for name in each})
    similar = difflib.get_close_matches(name, known)
    hint = f"; did you mean {similar[0]!r}?" if similar else "."
    return f"no fold has the score {name!r}{hint} There are {known}"


def cross_validate(
    component: TrainableComponent,
    config: TrainerConfig,
    data: Dataset,
    metrics_computer: MetricsComputer,
    *,
    nb_folds: int = 5,
    strata: Sequence[Hashable] | None = None,
    groups: Sequence[Hashable] | None = None,
    schedule: Schedule | optax.Schedule | None = None,
    callback: object = None,
    options: Options | None = None,
) -> CrossValidation:
    """Train a component on all folds but one, and score it on that one, for each fold.

    The weights after the last epoch are scored; the fold that is held out chooses nothing. Lengths
    to pad to are fitted to all data, so no program is compiled twice. A run that was killed goes on
    at its fold if the function is called again with the same arguments; to start afresh, choose
    another ``config.output_dir``. What can be told of them is compared: configuration, options,
    rates of the schedule, initial variables, `identity`, `loss_settings` and `reading` of the
    component, class and public attributes of the metrics computer, and the items where they consist
    of plain values, arrays, and containers and records of them. Other items, those of a dataset
    that reads them at random, and the code of functions are not compared.

    Parameters
    ----------
    component : TrainableComponent
        What to train; each fold starts from the weights of its `init`.
    config : TrainerConfig
        How to train it, with a seed; ``output_dir`` gets a folder for each fold.
    data : Dataset
        All items. Of `medjax.Sampled`, each fold is trained with the weights of its items; those
        that it holds out are scored once each.
    metrics_computer : MetricsComputer
        Scores the folds.
    nb_folds : int
        Number of folds, at least 2.
    strata : sequence of hashable, optional
        A class of each item, whose shares are kept alike in the folds as far as groups allow.
    groups : sequence of hashable, optional
        What items share that depend on each other, such as a patient: they are in one fold, and
        are drawn together for the intervals. A warning tells of texts in two folds.
    schedule, callback, options
        As for `train`.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If an argument is not what is expected, the training would watch the fold that is held out,
        or the output folder has folds of other data or other arguments.
    """
    if config.seed is None:
        raise ValueError("config.seed is None; expected a number, which the folds depend on")
    _refuse_watching(options, schedule, callback)
    folds = make_folds(len(data), nb_folds, strata, groups, config.seed)
    tell_shared_texts(data, folds)
    options = _with_lengths(options or Options(), component, config, data)
    settings = settings_of_folds(
        component, config, options, data, metrics_computer, as_schedule(schedule)
    )
    if groups is not None and (names := _names_of_columns(component, metrics_computer, data)):
        _check_groups(names, metrics_computer)
    scores, columns = [], []
    for number, held_out in enumerate(folds, start=1):
        folder = Path(config.output_dir) / f"fold_{number}"
        identity = identity_of_fold(settings, held_out.tolist())
        fold = _finished(folder, identity)
        if fold is None:
            logger.info("Fold %d of %d, %d items held out", number, nb_folds, len(held_out))
            _write(folder, identity, None)
            fold = _trained(
                component,
                dataclasses.replace(config, output_dir=folder),
                data,
                held_out,
                metrics_computer,
                schedule=schedule,
                callback=callback,
                options=options if options.log_dir is None else _logging(options, number),
            )
            _write(folder, identity, fold)
        if groups is not None:
            _check_groups(fold, metrics_computer)
        scores.append(metrics_computer.compute(fold))
        columns.append(fold)
    pooled = in_order({name: [v for part in columns for v in part[name]] for name in columns[0]})
    intervals = bootstrap(metrics_computer, pooled, groups=groups)
    return CrossValidation(scores, pooled, intervals, [fold.tolist() for fold in folds])


def _refuse_watching(options: Options | None, schedule: Any, callback: object) -> None:
    """Refuse what lets the fold that is held out choose."""
    stops = any(isinstance(each, EarlyStopping) for each in as_callback_list(callback).callbacks)
    stops = stops or (options is not None and options.early_stopping_patience is not None)
    if stops or as_schedule(schedule).mode is not None:
        msg = (
            "early stopping and reduce_on_plateau watch the scores of the fold that is held out; "
            "expected neither: give a number of epochs and a rate by step"
        )
        raise ValueError(msg)


def _check_groups(names: Collection[str], metrics_computer: MetricsComputer) -> None:
    """Refuse groups where no column tells which item a row belongs to."""
    if {DOCUMENT, GOLD, PAIR}.isdisjoint(names):
        msg = (
            f"the columns {[*names]} of {type(metrics_computer).__name__} do not tell which item "
            f"a row belongs to; expected {DOCUMENT!r} among them, to draw groups"
        )
        raise ValueError(msg)


def _names_of_columns(
    component: TrainableComponent, metrics_computer: MetricsComputer, data: Dataset
) -> list[str]:
    """Return the names of the columns of an evaluation, before any; [] if they cannot be told."""
    try:
        first = expand(_Part(data, np.arange(1)), component, training=False)
        variables = jax.eval_shape(component.init, jax.random.key(0))
        return sorted(sample_columns(component, metrics_computer, variables, first))
    except Exception:  # told by the training, if it is no matter of one item alone
        return []


def _trained(
    component: TrainableComponent,
    config: TrainerConfig,
    data: Dataset,
    held_out: np.ndarray,
    metrics_computer: MetricsComputer,
    *,
    options: Options,
    **more: Any,
) -> Columns:
    """Train on what a fold does not hold out, and return the columns of what it does."""
    collector = _Collector(metrics_computer)
    kept = np.setdiff1d(np.arange(len(data)), held_out)
    tests = _Part(data, held_out)
    result = train(
        component,
        config,
        _training_part(data, kept),
        tests,
        metrics_computer=collector,
        options=options,
        resume="auto",
        **more,
    )
    if not collector.columns:  # it was killed after its last epoch
        variables = result.state.variables
        evaluate(component, variables, config, tests, metrics_computer=collector, options=options)
    return _numbered(collector.columns, held_out)


def _with_lengths(
    options: Options, component: TrainableComponent, config: TrainerConfig, data: Dataset
) -> Options:
    """Return options with the lengths to pad to that are fitted to all data."""
    if options.length_ladder != "fitted":
        return options
    mesh = sharding.make_mesh()
    loader = get_dataloader(data, component, config, shuffle=True, options=options, mesh=mesh)
    lengths = loader.lengths
    loader.close()
    beyond = lengths_beyond(lengths[-1], platform_of(mesh))
    return dataclasses.replace(options, length_ladder=(*lengths, *beyond))


def _logging(options: Options, number: int) -> Options:
    """Return options with a folder of its own for the log of a fold."""
    return dataclasses.replace(options, log_dir=Path(str(options.log_dir)) / f"fold_{number}")


class _Part(Sequence[Any]):
    """Some items of a dataset."""

    def __init__(self, data: Dataset, positions: np.ndarray) -> None:
        self._data, self._positions = data, positions

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, position: Any) -> Any:
        return self._data[int(self._positions[position])]


def _training_part(data: Dataset, positions: np.ndarray) -> Dataset:
    """Return the items at `positions`, drawn with their weights if they have any."""
    part = _Part(data, positions)
    return Sampled(part, data.weights[positions]) if isinstance(data, Sampled) else part


class _Collector:
    """Scores like a metrics computer, and keeps the columns of the last evaluation."""

    def __init__(self, metrics: MetricsComputer) -> None:
        self._metrics = metrics
        self.columns: Columns = {}
        self.prepare_batch = metrics.prepare_batch

    def compute(self, all_data: Columns) -> dict[str, float]:
        """Keep the columns and score them."""
        self.columns = all_data
        return self._metrics.compute(all_data)


def _numbered(columns: Columns, held_out: np.ndarray) -> Columns:
    """Return the columns of a fold with the positions of documents in the whole dataset."""
    renumbered = dict(columns)
    if DOCUMENT in columns:
        renumbered[DOCUMENT] = [int(held_out[number]) for number in columns[DOCUMENT]]
    if GOLD in columns:
        renumbered[GOLD] = [
            (int(held_out[document]), words, entities)
            for document, words, entities in columns[GOLD]
        ]
    if PAIR in columns:
        renumbered[PAIR] = [(int(held_out[document]), *rest) for document, *rest in columns[PAIR]]
    return renumbered


def _write(folder: Path, identity: str, columns: Columns | None) -> None:
    """Record what a fold is of and, once it is finished, its columns."""
    stored: dict[str, Any] = {"fold": identity}
    if columns is not None:
        named = {name: column_to_json(name, values) for name, values in columns.items()}
        stored["columns"] = named
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_FINISHED}.part"
    partial.write_text(json.dumps(stored), encoding="utf-8")
    partial.replace(folder / _FINISHED)


def _finished(folder: Path, identity: str) -> Columns | None:
    """Return the columns of a fold that is finished, None if it is not."""
    file = folder / _FINISHED
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    if content["fold"] != identity:
        told = differences(content["fold"], identity)
        msg = (
            f"{file} is of other data, folds or settings ({told}); expected those of this call: "
            "choose another output_dir, or remove this one"
        )
        raise ValueError(msg)
    if "columns" not in content:
        return None
    return {name: from_json(values) for name, values in content["columns"].items()}
