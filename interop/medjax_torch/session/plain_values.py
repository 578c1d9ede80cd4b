"""Plain values: where they are in an object, how they are saved as JSON and set again."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from medjax_torch.component_state.locations import Entry, Inherited, Location
from medjax_torch.component_state.walk import is_of_library

_PLAIN = (bool, int, float, str, type(None))

_DEEPEST = 4
"""Number of nested dicts that are searched."""


def add(
    locations: dict[str, Location], prefix: str, entries: dict[Any, Any], *, depth: int
) -> None:
    """Add the locations of the plain values among the attributes of an object, and in dicts."""
    for key, value in list(dict.items(entries)):
        if not isinstance(key, str) or key.startswith("__"):
            continue
        if is_plain(value):
            locations.setdefault(prefix + key, Entry(entries, key))
        elif isinstance(value, dict) and depth < _DEEPEST and not key.startswith("_"):
            add(locations, f"{prefix}{key}.", value, depth=depth + 1)


def add_defaults(locations: dict[str, Location], prefix: str, holder: Any) -> None:
    """Add the plain values that an object has from its class."""
    if not hasattr(holder, "__dict__"):
        return
    for kind in type(holder).__mro__:
        for name, value in () if is_of_library(kind.__module__) else list(vars(kind).items()):
            if is_plain(value) and not name.startswith("__"):
                locations.setdefault(prefix + name, Inherited(holder, name))


_MOST = 10_000
"""Elements of the longest list or array that is kept."""


def is_plain(value: Any) -> bool:
    """Return whether a value is a number, string, bool, array, or a list or tuple of them."""
    if type(value) is np.ndarray or isinstance(value, np.generic):
        return value.size <= _MOST and value.dtype.kind in "biufc"
    if type(value) in (list, tuple):
        return len(value) <= _MOST and all(map(is_plain, value))
    return type(value) in _PLAIN


def encoded(value: Any) -> Any:
    """Return a value in a JSON form that is exact bit for bit and tells the types apart."""
    if isinstance(value, np.ndarray | np.generic):
        content = base64.b64encode(value.tobytes()).decode()
        shape = list(value.shape) if isinstance(value, np.ndarray) else None
        return {"dtype": value.dtype.str, "shape": shape, "bytes": content}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [encoded(each) for each in value]}
    return {"float": value.hex()} if isinstance(value, float) else value


def decoded(value: Any) -> Any:
    """Return the value of which `encoded` is the form."""
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float.fromhex(value["float"])
    if "bytes" in value:
        content = base64.b64decode(value["bytes"])
        array = np.frombuffer(content, np.dtype(value["dtype"]))
        return array[0] if value["shape"] is None else array.reshape(value["shape"]).copy()
    ((kind, values),) = value.items()
    return {"list": list, "tuple": tuple}[kind](map(decoded, values))


def put_value(location: Location, value: Any) -> None:
    """Set a value; a list or array keeps its identity, as others may refer to it."""
    present = location.get()
    if type(present) is list and type(value) is list:
        present[:] = value
    elif _is_alike(present, value):
        present[...] = value
    else:
        location.set(value)


def _is_alike(present: Any, value: Any) -> bool:
    return (
        isinstance(present, np.ndarray)
        and isinstance(value, np.ndarray)
        and (present.shape, present.dtype) == (value.shape, value.dtype)
        and present.flags.writeable
    )
