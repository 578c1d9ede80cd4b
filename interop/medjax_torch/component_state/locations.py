"""Places of values in Python objects: reading, replacing and remembering them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass
from types import CellType
from typing import Any, NamedTuple, Protocol

import numpy as np

MISSING: Any = object()
"""The content of an empty location."""


class Location(Protocol):
    """A place for one value."""

    def get(self) -> Any:
        """Return the value, or `MISSING` if the location is empty."""

    def set(self, value: Any) -> None:
        """Replace the value; `MISSING` empties the location."""


@dataclass(frozen=True, eq=False)
class Entry:
    """The value of a key in a dict, which may be an object's `__dict__` or a torch registry."""

    holder: dict[Any, Any]
    key: Any

    def get(self) -> Any:
        """Return the value, or `MISSING` if the key was removed."""
        return dict.get(self.holder, self.key, MISSING)

    def set(self, value: Any) -> None:
        """Replace the value, or remove the key."""
        # Bypass subclasses that do more than store, such as transformers' outputs; keep the order.
        base = OrderedDict if isinstance(self.holder, OrderedDict) else dict
        if value is not MISSING:
            base.__setitem__(self.holder, self.key, value)
        elif dict.__contains__(self.holder, self.key):
            base.__delitem__(self.holder, self.key)


@dataclass(frozen=True, eq=False)
class Item:
    """An element of a list or deque."""

    holder: MutableSequence[Any]
    index: int

    def get(self) -> Any:
        """Return the element, or `MISSING` if the list has become shorter."""
        return self.holder[self.index] if self.index < len(self.holder) else MISSING

    def set(self, value: Any) -> None:
        """Replace the element."""
        self.holder[self.index] = value


@dataclass(frozen=True, eq=False)
class Member:
    """An attribute outside of `__dict__`, such as one in `__slots__` or a function's defaults."""

    holder: Any
    name: str

    def get(self) -> Any:
        """Return the attribute, or `MISSING` if it is not set."""
        return getattr(self.holder, self.name, MISSING)

    def set(self, value: Any) -> None:
        """Replace the attribute, even of a frozen dataclass or a class."""
        if isinstance(self.holder, type):
            setattr(self.holder, self.name, value)
        elif value is not MISSING:
            object.__setattr__(self.holder, self.name, value)
        elif self.get() is not MISSING:
            object.__delattr__(self.holder, self.name)


@dataclass(frozen=True, eq=False)
class OfClass:
    """An attribute of a class itself, as it is stored there: a static method stays one."""

    holder: type
    name: str

    def get(self) -> Any:
        """Return the attribute, or `MISSING` if the class does not have its own."""
        return vars(self.holder).get(self.name, MISSING)

    def set(self, value: Any) -> None:
        """Replace the attribute."""
        if value is not MISSING:
            setattr(self.holder, self.name, value)
        elif self.name in vars(self.holder):
            delattr(self.holder, self.name)


@dataclass(frozen=True, eq=False)
class Whole:
    """The whole content of a list, deque, set or array."""

    holder: Any

    def get(self) -> Any:
        """Return a copy of the content."""
        return _content(self.holder)

    def set(self, value: Any) -> None:
        """Replace the content, not the object."""
        _fill(self.holder, value)


@dataclass(frozen=True, eq=False)
class Inherited:
    """An attribute that an object has from its class, until one of its own is set.

    A value of the class itself is not kept twice, so that later changes of the class count.
    """

    holder: Any
    name: str

    def get(self) -> Any:
        """Return the object's value, else that of its class."""
        return getattr(self.holder, self.name, MISSING)

    def set(self, value: Any) -> None:
        """Set the object's value, or remove it."""
        own = object.__getattribute__(self.holder, "__dict__")
        if value is MISSING or value is getattr(type(self.holder), self.name, MISSING):
            own.pop(self.name, None)
        else:
            own[self.name] = value


@dataclass(frozen=True, eq=False)
class Cell:
    """A variable that a closure captured."""

    cell: CellType

    def get(self) -> Any:
        """Return the variable, or `MISSING` before it is assigned."""
        try:
            return self.cell.cell_contents
        except ValueError:
            return MISSING

    def set(self, value: Any) -> None:
        """Replace the variable."""
        if value is not MISSING:
            self.cell.cell_contents = value
        elif self.get() is not MISSING:
            del self.cell.cell_contents


@dataclass(frozen=True, eq=False)
class Element:
    """An element of a tuple; replacing it replaces the tuple in its own location."""

    parent: Location
    index: int

    def get(self) -> Any:
        """Return the element, or `MISSING` if the parent location no longer contains a tuple."""
        elements = self.parent.get()
        return elements[self.index] if isinstance(elements, tuple) else MISSING

    def set(self, value: Any) -> None:
        """Replace the tuple by one of the same type that differs in this element."""
        elements = self.parent.get()
        values = (*elements[: self.index], value, *elements[self.index + 1 :])
        make = getattr(elements, "_make", type(elements))
        self.parent.set(make(values))


class Snapshot:
    """A shallow copy of the content of a mutable object, to detect changes and undo them.

    Parameters
    ----------
    path : str
        The object's name in messages.
    holder : dict, list, deque, set, array or Location
        The object.
    """

    def __init__(self, path: str, holder: Any) -> None:
        self.path = path
        self.holder = holder
        self.content = _content(holder)

    def changes(self) -> list[Effect]:
        """Return every value that is another object than before; arrays by their content."""
        if isinstance(self.holder, dict):
            new, old = _content(self.holder), self.content
            return [
                Effect(
                    f"{self.path}.{key}".lstrip("."),
                    old.get(key, MISSING),
                    new.get(key, MISSING),
                    Entry(self.holder, key),
                )
                for key in {**old, **new}
                if old.get(key, MISSING) is not new.get(key, MISSING)
            ]
        new = _content(self.holder)
        if _same(new, self.content):
            return []
        if not isinstance(self.holder, _CONTAINERS):
            return [Effect(self.path, self.content[0], new[0], self.holder)]
        return [Effect(self.path, self.content, new, Whole(self.holder))]

    def restore(self) -> None:
        """Restore the content and its order; an unchanged object is not touched."""
        new = _content(self.holder)
        if isinstance(self.holder, dict):
            if list(new) != list(self.content) or not _same(new.values(), self.content.values()):
                _refill(self.holder, self.content)
        elif not _same(new, self.content):
            _fill(self.holder, self.content)


_CONTAINERS = (list, deque, set, np.ndarray)


class Effect(NamedTuple):
    """A change that forward made.

    Attributes
    ----------
    path : str
        Its name in messages.
    before, after : value
        The values, `MISSING` if there was or is none; of a list, set or array, its content.
    location : Location
        Where it is.
    """

    path: str
    before: Any
    after: Any
    location: Location


def _fill(holder: Any, content: Any) -> None:
    if isinstance(holder, np.ndarray):
        holder[...] = content
    elif isinstance(holder, set):
        holder.clear()
        holder.update(content)
    elif isinstance(holder, list | deque):
        holder.clear()
        holder.extend(content)
    else:
        holder.set(*content)


def _content(holder: Any) -> Any:
    if isinstance(holder, dict):
        return dict(dict.items(holder))
    if isinstance(holder, list | deque | set):
        return list(holder)
    if isinstance(holder, np.ndarray):
        return holder.copy()
    return [holder.get()]


def _same(left: Iterable[Any], right: Iterable[Any]) -> bool:
    """Return whether both have the same objects in the same order; tensors have no boolean `==`."""
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.tobytes() == right.tobytes()
    first, second = list(left), list(right)
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _refill(holder: dict[Any, Any], content: dict[Any, Any]) -> None:
    base = OrderedDict if isinstance(holder, OrderedDict) else dict
    base.clear(holder)
    for key, value in content.items():
        base.__setitem__(holder, key, value)
