"""Progress: what a resumed run needs besides its arrays, ready for JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

from medjax.checkpoint import CorruptCheckpointError, MismatchError
from medjax.checkpoint.manifest import UNREADABLE
from medjax.columns import column_to_json, from_json
from medjax.schedules import ScheduleState

_KINDS: dict[str, Any] = {
    **{"seed": int, "data": dict, "schedule": dict, "epoch": int, "batch": int},
    **{"columns": dict, "history": list, "callbacks": dict, "stop_reason": str | None},
}


class Progress(NamedTuple):
    """Where a run is. Together with the arrays of the `TrainState` it is the whole run.

    Attributes
    ----------
    seed : int
        Seed of initialisation, order and dropout.
    data : dict
        What the meaning of `batch` depends on: items, batch size and grouping. Not the content of
        the items: what is mended between two starts, drawn at random or read from another folder
        cannot be told from other data without reading it.
    schedule : dict
        State of the learning-rate schedule.
    epoch : int
        Epoch in progress, from 1.
    batch : int
        Training batches of it that are done.
    columns : dict
        What the metrics computer kept of these batches, when it runs in training.
    history : list of dict
        One row ``{"train": ..., "eval": ...}`` for each finished epoch.
    callbacks : dict
        States of the callbacks.
    stop_reason : str or None
        Why a callback ended training, if one did.
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


def progress_record(progress: Progress) -> dict[str, Any]:
    """Return `progress` ready for JSON.

    Raises
    ------
    TypeError
        If a column of the metrics computer holds something that JSON cannot give back.
    """
    columns = {name: column_to_json(name, values) for name, values in progress.columns.items()}
    return {**progress._asdict(), "columns": columns}


def restore_progress(saved: dict[str, Any], now: Progress) -> Progress:
    """Return the progress of a checkpoint, checked against the run that wants to go on.

    Parameters
    ----------
    saved : dict
        From `progress_record`, through JSON.
    now : Progress
        The progress a new run would start with.

    Raises
    ------
    CorruptCheckpointError
        If it is no progress.
    MismatchError
        If the schedule is of another kind, or the checkpoint stands within an epoch and the data,
        its batches or the seed have changed, so that its position means nothing.
    """
    try:
        progress = _progress_from(saved)
    except UNREADABLE as error:
        msg = f"the progress of the checkpoint is damaged ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error
    missing = now.schedule.keys() - progress.schedule.keys()
    if missing:
        msg = (
            f"the checkpoint's schedule has {sorted(progress.schedule)} but no {sorted(missing)}; "
            "resume with the kind of schedule that it was saved with"
        )
        raise MismatchError(msg)
    if progress.batch == 0:
        return progress._replace(data=now.data, seed=now.seed)
    then = {"seed": progress.seed, **progress.data}
    for name, value in {"seed": now.seed, **now.data}.items():
        if then.get(name) != value:
            msg = (
                f"the checkpoint stands at batch {progress.batch} of epoch {progress.epoch}, "
                f"where {name} was {then.get(name)!r}, but now it is {value!r}; resume with what "
                "it was, or from a checkpoint at the end of an epoch"
            )
            raise MismatchError(msg)
    return progress


def _progress_from(saved: dict[str, Any]) -> Progress:
    fields = {name: value for name, value in saved.items() if name in Progress._fields}
    for name, value in fields.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise TypeError(f"{name} is {value!r:.60}")
    progress = Progress(**fields)
    if progress.epoch < 1 or progress.batch < 0 or not 0 <= progress.seed < 2**63:
        raise ValueError(f"epoch {progress.epoch}, batch {progress.batch}, seed {progress.seed}")
    if not all(isinstance(value, int | float) for value in progress.schedule.values()):
        raise TypeError(f"the schedule is {progress.schedule!r:.60}")
    for row in progress.history:
        if not all(isinstance(metrics, dict) for metrics in row.values()):
            raise TypeError(f"a row of the history is {row!r:.60}")
    columns = {name: from_json(values) for name, values in progress.columns.items()}
    if not all(isinstance(values, list) for values in columns.values()):
        raise TypeError(f"the columns are {columns!r:.60}")
    return progress._replace(columns=columns)
