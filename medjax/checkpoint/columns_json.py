"""Columns of a metrics computer as JSON, restored with their original types.

Types matter: the sum of numpy float32 scalars differs from that of Python floats, and a tuple can
be in a set but a list cannot. A JSON object here always has one key, the type.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

__all__ = ["column_to_json", "from_json"]

_MAX_BYTES = 2**30


def column_to_json(name: str, values: list[Any]) -> Any:
    """Convert a column to what JSON can hold.

    Raises
    ------
    TypeError
        If a value cannot be restored from JSON.

    Examples
    --------
    >>> column_to_json("spans", [(0, 4), (5, 9)])
    [{'tuple': [0, 4]}, {'tuple': [5, 9]}]
    """
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


def _check_dtype(dtype: np.dtype) -> None:
    if dtype.kind not in "biufU" and dtype.name != "bfloat16":
        raise TypeError(f"an array of {dtype} cannot be stored in a checkpoint")


def _array_to_json(array: np.ndarray) -> list[Any]:
    _check_dtype(array.dtype)
    return [str(array.dtype), list(array.shape), array.ravel().tolist()]


def _array_from_json(stored: list[Any]) -> np.ndarray:
    name, shape, values = stored
    dtype = np.dtype(name)
    _check_dtype(dtype)
    if dtype.itemsize * len(values) > _MAX_BYTES:  # a damaged dtype may claim huge strings
        raise ValueError(f"{len(values)} values of {dtype} have more than {_MAX_BYTES >> 20} MiB")
    return np.array(values, dtype).reshape(shape)


def from_json(stored: Any) -> Any:
    """Restore the column that `column_to_json` converted.

    Examples
    --------
    >>> from_json([{"tuple": [0, 4]}, {"tuple": [5, 9]}])
    [(0, 4), (5, 9)]
    """
    if isinstance(stored, list):
        return [from_json(item) for item in stored]
    if not isinstance(stored, dict):
        return stored
    ((kind, value),) = stored.items()
    if kind == "tuple":
        return tuple(from_json(item) for item in value)
    if kind == "dict":
        return {from_json(key): from_json(item) for key, item in value}
    array = _array_from_json(value)
    if kind == "numpy array":
        return array
    return list(array) if kind == "numpy scalars" else array[()]
