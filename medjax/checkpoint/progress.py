"""Progress: what a resumed run needs in addition to its arrays, ready for JSON."""

from __future__ import annotations

import itertools
import logging
from typing import Any, NamedTuple

import numpy as np

from medjax.checkpoint.columns_json import column_to_json, from_json
from medjax.checkpoint.errors import CorruptCheckpointError
from medjax.checkpoint.manifest import UNREADABLE
from medjax.checkpoint.metrics_json import history_to_json
from medjax.schedules import ScheduleState

__all__ = [
    "EVAL_ITEMS",
    "EVAL_SINCE",
    "Progress",
    "check_position",
    "progress_record",
    "read_progress",
    "tell_of_other_data",
]

logger = logging.getLogger("medjax")

EVAL_ITEMS = "eval_items"
"""Entry of `Progress.data`: number of items of the evaluation data, None without any."""

EVAL_SINCE = "eval_since"
"""Entry of `Progress.data`: number of epochs whose scores are of other evaluation data."""

_LONGEST = 2**31  # positions of a row
_LARGEST_RATE = float(np.finfo(np.float32).max)

_KINDS: dict[str, Any] = {
    "seed": int,
    "data": dict,
    "schedule": dict,
    "epoch": int,
    "batch": int,
    "columns": dict,
    "history": list,
    "callbacks": dict,
    "stop_reason": str | None,
    "stopped_by": str | None,
    "settings": dict,
    "ladders": dict,
    "updates": int | None,
    "left_out": int,
    "skipped": int | None,
}


class Progress(NamedTuple):
    """The position and history of a run. With the arrays of the `TrainState`, it is complete.

    Attributes
    ----------
    seed : int
        Seed of initialisation, order and dropout.
    data : dict
        What determines the meaning of `batch`: number of items, batch size and grouping; and what
        the scores are of: `EVAL_ITEMS` and `EVAL_SINCE`. The contents of the items are not
        recorded: without reading them, other data cannot be told from items that were corrected,
        are random, or have moved to another folder.
    schedule : dict
        State of the learning-rate schedule.
    epoch : int
        Current epoch, from 1.
    batch : int
        Number of training batches of this epoch that are done.
    columns : dict
        Columns that the metrics computer collected from these batches, if it runs in training.
    history : list of dict
        One row ``{"train": ..., "eval": ...}`` for each finished epoch.
    callbacks : dict
        States of the callbacks.
    stop_reason : str or None
        Why a callback ended training, if one did.
    stopped_by : str or None
        Class and number of that callback.
    settings : dict
        The user's settings when this was saved, by name; {} in checkpoints of older versions.
    ladders : dict
        The lengths that were fitted to the data, ``{"train": [...], "eval": [...]}``; {} if none.
    updates : int or None
        Number of updates that were due in the finished epochs, those of batches that were left out
        or weighed nothing included; None if the run began in an older version.
    left_out : int
        Number of batches of the last finished epoch that it ended before.
    skipped : int or None
        Number of batches of the finished epochs that were skipped, as they were not finite; None if
        the checkpoint is one of an older version.

    Examples
    --------
    >>> progress = Progress(seed=7, data={"items": 50}, schedule={"learning_rate": 0.1}, epoch=2)
    >>> progress.epoch, progress.batch
    (2, 0)
    """

    seed: int
    data: dict[str, Any]
    schedule: ScheduleState
    epoch: int = 1
    batch: int = 0
    columns: dict[str, list[Any]] = {}  # noqa: RUF012  (never changed in place)
    history: list[dict[str, dict[str, float]]] = []  # noqa: RUF012
    callbacks: dict[str, Any] = {}  # noqa: RUF012
    stop_reason: str | None = None
    stopped_by: str | None = None
    settings: dict[str, Any] = {}  # noqa: RUF012
    ladders: dict[str, list[int]] = {}  # noqa: RUF012
    updates: int | None = 0
    left_out: int = 0
    skipped: int | None = 0


def progress_record(progress: Progress) -> dict[str, Any]:
    """Convert `progress` to a dict that is ready for JSON.

    Raises
    ------
    TypeError
        If a column of the metrics computer holds something that cannot be restored from JSON.

    Examples
    --------
    >>> progress = Progress(seed=7, data={"items": 50}, schedule={"learning_rate": 0.1})
    >>> read_progress(progress_record(progress)) == progress
    True
    """
    columns = {name: column_to_json(name, values) for name, values in progress.columns.items()}
    history = history_to_json(progress.history)
    return {**progress._asdict(), "columns": columns, "history": history}


def read_progress(saved: dict[str, Any]) -> Progress:
    """Read the progress of a checkpoint, which `progress_record` made.

    Parameters
    ----------
    saved : dict
        From `progress_record`, through JSON.

    Raises
    ------
    CorruptCheckpointError
        If it is damaged.
    """
    try:
        return _progress_from(saved)
    except UNREADABLE as error:
        msg = f"the progress of the checkpoint is damaged ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error


def check_position(progress: Progress, nb_batches: int) -> None:
    """Refuse a position that a run on this data cannot have.

    Parameters
    ----------
    progress : Progress
        From `read_progress`.
    nb_batches : int
        Number of batches in an epoch.

    Raises
    ------
    CorruptCheckpointError
        If there is no such batch, or the history does not have a row for each finished epoch.

    Examples
    --------
    >>> check_position(Progress(seed=7, data={}, schedule={}, batch=3), nb_batches=10)
    """
    if progress.epoch != len(progress.history) + 1:
        msg = (
            f"the checkpoint is in epoch {_short(progress.epoch)}, but its history has "
            f"{len(progress.history)} epochs; expected one row for each finished epoch. Resume "
            "from another checkpoint"
        )
        raise CorruptCheckpointError(msg)
    if progress.batch > nb_batches:
        msg = (
            f"the checkpoint is at batch {_short(progress.batch)} of an epoch, but an epoch of "
            f"this data has {nb_batches} batches. Resume from another checkpoint"
        )
        raise CorruptCheckpointError(msg)


def _short(number: int) -> str:
    return str(number) if number < 10**15 else f"10**{len(str(number)) - 1} or more"


def tell_of_other_data(saved: Progress, current: Progress) -> None:
    """Log a warning if the number of items has changed since the checkpoint was saved.

    Examples
    --------
    >>> progress = Progress(seed=7, data={"items": 50}, schedule={})
    >>> tell_of_other_data(progress, progress)
    """
    nb_saved, nb_current = saved.data.get("items"), current.data.get("items")
    if nb_saved is not None and nb_saved != nb_current:
        logger.warning(
            "The training data has %s items, but it had %s when the checkpoint was saved, at the "
            "end of epoch %d; training continues with the current items",
            nb_current,
            nb_saved,
            saved.epoch - 1,
        )


def _is_ladder(lengths: list[Any]) -> bool:
    """Return whether lengths are increasing, and small enough for an array."""
    if not lengths or not all(type(n) is int and 0 < n < _LONGEST for n in lengths):
        return False
    return all(low < high for low, high in itertools.pairwise(lengths))


def _progress_from(saved: dict[str, Any]) -> Progress:
    fields = {name: value for name, value in saved.items() if name in Progress._fields}
    for name in ("updates", "skipped"):
        fields.setdefault(name, None)
    for name, value in fields.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r:.60}")
    progress = Progress(**fields)
    if progress.epoch < 1 or progress.batch < 0 or not 0 <= progress.seed < 2**63:
        raise ValueError(f"epoch {progress.epoch}, batch {progress.batch}, seed {progress.seed}")
    counts = {name: fields.get(name) or 0 for name in ("updates", "left_out", "skipped")}
    if min(counts.values()) < 0:
        raise ValueError(f"found {counts}")
    since = progress.data.get(EVAL_SINCE, 0)
    if type(since) is not int or not 0 <= since < progress.epoch:
        raise ValueError(f"{EVAL_SINCE} is {since!r:.60} in epoch {progress.epoch}")
    rate = progress.schedule.get("learning_rate", 0.0)
    if not isinstance(rate, int | float) or isinstance(rate, bool):
        raise TypeError(f"the schedule is {progress.schedule!r:.60}")
    if not abs(float(rate)) <= _LARGEST_RATE:
        raise ValueError(f"the learning rate is {rate!r:.60}")
    for name, lengths in progress.ladders.items():
        if not isinstance(lengths, list) or not _is_ladder(lengths):
            raise TypeError(f"the ladder of {name} is {lengths!r:.60}")
    for row in progress.history:
        if not all(isinstance(metrics, dict) for metrics in row.values()):
            raise TypeError(f"a row of the history is {row!r:.60}")
    columns = {name: from_json(values) for name, values in progress.columns.items()}
    if not all(isinstance(values, list) for values in columns.values()):
        raise TypeError(f"the columns are {columns!r:.60}")
    return progress._replace(columns=columns)
