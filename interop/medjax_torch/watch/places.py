"""Places of Python values that forward reads, and whether they still hold what they held."""

from __future__ import annotations

import enum
import itertools
import operator
from argparse import Namespace
from collections import deque
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch

from medjax_torch.slots import MISSING, Entry, Slot

_PLAIN = (bool, int, float, complex, str, bytes, type(None), enum.Enum, np.generic)
_VALUES = (*_PLAIN, torch.dtype, torch.device, torch.Size, slice, range)

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_NAMESPACES = (SimpleNamespace, Namespace)

_MOST = 10_000
"""Elements of a container that are compared one by one; a larger one, by identity and length."""

_DEEPEST = 8
"""Containers within containers that are looked into; those beyond, by identity."""


class Place(NamedTuple):
    """Where a value lies.

    Attributes
    ----------
    path : str
        What to call it in messages, such as ``"model.dropout.p"``.
    slot : Slot
        Gives and takes the value.
    """

    path: str
    slot: Slot


class Places:
    """What lies in a number of places now, to be compared with what lies there later.

    Numbers, texts and the like count by value, arrays and containers by content, and every other
    object by identity.

    Parameters
    ----------
    places : iterable of Place
        The places. Containers there are looked into.
    """

    def __init__(self, places: Iterable[Place]) -> None:
        self._entries: list[Place] = []
        self._others: list[tuple[Place, Any]] = []
        self._lengths: list[tuple[Place, Any, int]] = []
        self._empty: list[Any] = []
        self._empty_places: list[Place] = []
        self._seen: set[tuple[int, Any]] = set()
        for place in places:
            self._add(place)
        # Apart, so that they are compared without running any Python.
        self._holders = [place.slot.holder for place in self._entries]  # type: ignore[attr-defined]
        self._keys = [place.slot.key for place in self._entries]  # type: ignore[attr-defined]
        self._values = [place.slot.get() for place in self._entries]

    def hold(self) -> bool:
        """Tell whether every place holds what it held."""
        now = map(dict.get, self._holders, self._keys, itertools.repeat(MISSING))
        if not all(map(operator.is_, now, self._values)) and self._changed_entries():
            return False
        if any(self._empty) or any(len(held) != length for _, held, length in self._lengths):
            return False
        return all(token(place.slot.get()) == before for place, before in self._others)

    def changed(self) -> list[Place]:
        """Return the places that hold something else than they did."""
        return [
            *self._changed_entries(),
            *(p for p, held in zip(self._empty_places, self._empty, strict=True) if held),
            *(place for place, held, length in self._lengths if len(held) != length),
            *(place for place, before in self._others if token(place.slot.get()) != before),
        ]

    def _changed_entries(self) -> list[Place]:
        return [
            place
            for place, before in zip(self._entries, self._values, strict=True)
            if (now := place.slot.get()) is not before and token(now) != token(before)
        ]

    def _add(self, place: Place) -> None:
        slot, value = place.slot, place.slot.get()
        if isinstance(slot, Entry):
            key = (id(slot.holder), slot.key)
            if key in self._seen:
                return
            self._seen.add(key)
        held = vars(value) if isinstance(value, _NAMESPACES) else value
        if isinstance(held, dict) and len(held) <= _MOST:
            self._add_dict(place, value, held)
        elif isinstance(slot, Entry) and not _is_mutable(value):
            self._entries.append(place)
        else:
            self._others.append((place, token(value)))

    def _add_dict(self, place: Place, value: Any, held: dict[Any, Any]) -> None:
        if isinstance(place.slot, Entry):
            self._entries.append(place)
        else:
            self._others.append((place, _Same(value)))
        if not held:
            self._empty.append(held)
            self._empty_places.append(place)
            return
        self._lengths.append((place, held, len(held)))
        for key in dict.keys(held):
            self._add(Place(f"{place.path}.{key}", Entry(held, key)))


class _Same:
    """An object that equals itself only."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    __hash__ = None  # type: ignore[assignment]


def token(value: Any, depth: int = 0) -> Any:
    """Return what two values that mean the same to forward have equal.

    Parameters
    ----------
    value : object
        The value.
    depth : int
        How many containers it lies in.
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
        return kind, [(key, token(held, depth)) for key, held in dict.items(value)]
    if isinstance(value, set | frozenset):
        return kind, sorted(map(repr, value))
    return kind, [token(held, depth) for held in value]


def is_value(value: Any) -> bool:
    """Tell whether a value counts by its content."""
    return isinstance(value, (*_VALUES, *_CONTAINERS, *_NAMESPACES, np.ndarray))


def _is_mutable(value: Any) -> bool:
    return isinstance(value, np.ndarray | list | tuple | set | frozenset | deque | dict)
