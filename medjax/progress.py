"""Progress: what a resumed run needs besides its arrays, ready for JSON."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.checkpoint import MismatchError
from medjax.schedules import ScheduleState


class Progress(NamedTuple):
    """Where a run is. Together with the arrays of the `TrainState` it is the whole run.

    Attributes
    ----------
    seed : int
        Seed of initialisation, order and dropout.
    data : dict
        What the meaning of `batch` depends on: items, batch size and grouping.
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
    columns = {name: _column_to_json(name, values) for name, values in progress.columns.items()}
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
    MismatchError
        If the checkpoint stands within an epoch and the data, its batches or the seed have
        changed, so that its position means nothing.
    """
    progress = Progress(**{name: value for name, value in saved.items() if name in now._fields})
    columns = {name: _from_json(values) for name, values in progress.columns.items()}
    progress = progress._replace(columns=columns)
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


# Columns come back as they were: a sum of numpy's float32 scalars is another number than the sum of
# Python's floats, and a tuple can be in a set. A JSON object always has one key, the type.


def _column_to_json(name: str, values: list[Any]) -> Any:
    types = {value.dtype if isinstance(value, np.generic) else None for value in values}
    try:
        if len(types) == 1 and None not in types:
            return {"numpy scalars": _array_to_json(np.array(values))}
        return [_to_json(value) for value in values]
    except TypeError as error:
        raise TypeError(f"column {name!r} of the metrics computer: {error}") from None


def _to_json(value: Any) -> Any:
    if isinstance(value, np.generic):
        return {"numpy scalar": _array_to_json(np.asarray(value))}
    if isinstance(value, np.ndarray | jax.Array):
        return {"numpy array": _array_to_json(np.asarray(value))}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item) for item in value]}
    if isinstance(value, dict):
        return {"dict": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    msg = f"{value!r} of type {type(value).__name__} cannot be stored in a checkpoint"
    raise TypeError(msg)


def _array_to_json(array: np.ndarray) -> list[Any]:
    if array.dtype.kind not in "biufU" and array.dtype.name != "bfloat16":
        raise TypeError(f"an array of {array.dtype} cannot be stored in a checkpoint")
    return [str(array.dtype), list(array.shape), array.ravel().tolist()]


def _array_from_json(stored: list[Any]) -> np.ndarray:
    dtype, shape, values = stored
    return np.array(values, np.dtype(dtype)).reshape(shape)


def _from_json(stored: Any) -> Any:
    if isinstance(stored, list):
        return [_from_json(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    ((kind, value),) = stored.items()
    if kind == "tuple":
        return tuple(_from_json(item) for item in value)
    if kind == "dict":
        return {_from_json(key): _from_json(item) for key, item in value}
    array = _array_from_json(value)
    if kind == "numpy array":
        return array
    return list(array) if kind == "numpy scalars" else array[()]
