"""Places of Python values that forward reads, and detection of changes to them."""

from __future__ import annotations

import enum
import itertools
import operator
from argparse import Namespace
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from medjax_torch.component_state.locations import MISSING, Entry, Location
from medjax_torch.component_state.walk import key_name
from medjax_torch.torch_internals import disable_torch_function_of_subclasses

_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, np.generic)
_VALUES = (*_PLAIN, torch.dtype, torch.device, torch.Size, slice, range)

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_NAMESPACES = (SimpleNamespace, Namespace)

_MOST = 10_000
"""Containers with more elements are compared by identity and length, not element by element."""

_DEEPEST = 8
"""Depth of nested containers that are compared by content; deeper ones, by identity."""


class Place(NamedTuple):
    """The place of a value.

    Attributes
    ----------
    path : str
        Its name in messages, such as ``"model.dropout.p"``.
    location : Location
        Reads and replaces the value.
    """

    path: str
    location: Location


class Places:
    """Remembers the values in a number of places, to compare them with later ones.

    Numbers, strings and the like are compared by value, arrays and containers by content, tensors
    by their version, small ones by content, and all other objects by identity.

    Parameters
    ----------
    places : iterable of Place
        The places, including the content of containers there.
    own : collection of int
        The `id` of each tensor that is an input of the graph. All others are compared as well.
    """

    def __init__(self, places: Iterable[Place], own: Collection[int] | None = None) -> None:
        self._own = own
        self._foreign: list[tuple[Place, torch.Tensor, Any]] = []
        self._entries: list[Place] = []
        self._others: list[tuple[Place, Any]] = []
        self._lengths: list[tuple[Place, Any, int]] = []
        self._empty: list[Any] = []
        self._empty_places: list[Place] = []
        self._seen: set[tuple[int, Any]] = set()
        for place in places:
            self._add(place)
        # Separate lists, so that `hold` can compare them without running Python code.
        self._holders = [place.location.holder for place in self._entries]  # type: ignore[attr-defined]
        self._keys = [place.location.key for place in self._entries]  # type: ignore[attr-defined]
        self._values = [place.location.get() for place in self._entries]

    def hold(self) -> bool:
        """Return whether every place still has its value."""
        values = map(dict.get, self._holders, self._keys, itertools.repeat(MISSING))
        if not all(map(operator.is_, values, self._values)) and self._changed_entries():
            return False
        if any(self._empty) or any(len(entries) != length for _, entries, length in self._lengths):
            return False
        if any(_version(tensor) != before for _, tensor, before in self._foreign):
            return False
        return all(token(place.location.get()) == before for place, before in self._others)

    def changed(self) -> list[Place]:
        """Return the places whose value has changed."""
        changed = self._changed_entries()
        filled = zip(self._empty_places, self._empty, strict=True)
        changed += [place for place, entries in filled if entries]
        changed += [place for place, entries, length in self._lengths if len(entries) != length]
        changed += [place for place, t, before in self._foreign if _version(t) != before]
        changed += [p for p, before in self._others if token(p.location.get()) != before]
        return changed

    def _changed_entries(self) -> list[Place]:
        return [
            place
            for place, before in zip(self._entries, self._values, strict=True)
            if (value := place.location.get()) is not before and token(value) != token(before)
        ]

    def _add(self, place: Place) -> None:
        location, value = place.location, place.location.get()
        if isinstance(value, torch.Tensor) and location.get() is not value:
            return  # a property computes it each time, from what forward is seen to read
        if isinstance(location, Entry):
            key = (id(location.holder), location.key)
            if key in self._seen:
                return
            self._seen.add(key)
        if self._own is not None:
            tensors = {id(tensor): tensor for tensor in _tensors_in(value)}
            self._foreign += [
                (place, tensor, _version(tensor))
                for key, tensor in tensors.items()
                if key not in self._own
            ]
        entries = vars(value) if isinstance(value, _NAMESPACES) else value
        if isinstance(entries, dict) and len(entries) <= _MOST:
            self._add_dict(place, value, entries)
        elif isinstance(location, Entry) and not _is_mutable(value):
            self._entries.append(place)
        else:
            self._others.append((place, token(value)))

    def _add_dict(self, place: Place, value: Any, entries: dict[Any, Any]) -> None:
        if isinstance(place.location, Entry):
            self._entries.append(place)
        else:
            self._others.append((place, _Same(value)))
        if not entries:
            self._empty.append(entries)
            self._empty_places.append(place)
            return
        self._lengths.append((place, entries, len(entries)))
        for index, key in enumerate(dict.keys(entries)):
            self._add(Place(f"{place.path}.{key_name(key, index)}", Entry(entries, key)))


_SMALL = 1024
"""Elements of the largest tensor that is compared by content: an array may share its memory."""


def _version(tensor: torch.Tensor) -> Any:
    """Return a value that differs once the tensor has been written to."""
    with disable_torch_function_of_subclasses():
        version = None if tensor.is_inference() else tensor._version
        is_small = tensor.numel() <= _SMALL and tensor.layout == torch.strided
        if not is_small or tensor.device.type != "cpu":
            return version
        return version, tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _tensors_in(value: Any, depth: int = 0) -> Iterator[torch.Tensor]:
    """Yield a tensor, or those in a list, tuple or set; those in dicts have places of their own."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | set | frozenset | deque):
        if len(value) <= _MOST and depth <= _DEEPEST:
            for element in value:
                yield from _tensors_in(element, depth + 1)
    elif depth and isinstance(value, dict):
        yield from _tensors_in(list(dict.values(value)), depth)


class _Same:
    """Wraps an object to compare it by identity."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def token(value: Any, depth: int = 0) -> Any:
    """Return a token that is equal for values that are the same to forward.

    Parameters
    ----------
    value : object
        The value.
    depth : int
        Number of containers that enclose it.
    """
    if isinstance(value, float):
        return "float", value.hex()  # NaN differs from itself, and 0.0 equals -0.0
    if isinstance(value, _VALUES):
        return type(value).__name__, value
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return "array", value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, _NAMESPACES):
        return _of_container(vars(value), depth + 1)
    if isinstance(value, _CONTAINERS):
        return _of_container(value, depth + 1)
    return _Same(value)


def _of_container(value: Any, depth: int) -> Any:
    kind = type(value).__name__
    if len(value) > _MOST or depth > _DEEPEST:
        return kind, len(value), _Same(value)
    if isinstance(value, dict):
        return kind, [(key, token(element, depth)) for key, element in dict.items(value)]
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, value))
    return kind, [token(element, depth) for element in value]


def is_value(value: Any) -> bool:
    """Return whether a value is compared by its content."""
    return isinstance(value, (*_VALUES, *_CONTAINERS, *_NAMESPACES, np.ndarray))


def _is_mutable(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | tuple | set | frozenset | deque | dict)
