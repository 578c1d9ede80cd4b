"""Where a value lies in a Python object: read it, replace it, remember it."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass
from types import CellType
from typing import Any, Protocol

MISSING: Any = object()
"""Stands for the content of an empty slot."""


class Slot(Protocol):
    """A place that holds one value."""

    def get(self) -> Any:
        """Return the content, `MISSING` if there is none."""

    def set(self, value: Any) -> None:
        """Replace the content; `MISSING` empties the slot."""


@dataclass(frozen=True, eq=False)
class Entry:
    """The value of a key of a dict, an object's `__dict__` and torch's registries included."""

    holder: dict[Any, Any]
    key: Any

    def get(self) -> Any:
        """Return the value, `MISSING` if the key is gone."""
        return dict.get(self.holder, self.key, MISSING)

    def set(self, value: Any) -> None:
        """Replace the value."""
        # A subclass may do more than store (transformers' outputs do); its own order is kept.
        base = OrderedDict if isinstance(self.holder, OrderedDict) else dict
        base.__setitem__(self.holder, self.key, value)


@dataclass(frozen=True, eq=False)
class Item:
    """An element of a list or deque."""

    holder: MutableSequence[Any]
    index: int

    def get(self) -> Any:
        """Return the element, `MISSING` if the list became shorter."""
        return self.holder[self.index] if self.index < len(self.holder) else MISSING

    def set(self, value: Any) -> None:
        """Replace the element."""
        self.holder[self.index] = value


@dataclass(frozen=True, eq=False)
class Member:
    """An attribute that does not lie in a `__dict__`: of `__slots__`, or a function's defaults."""

    holder: Any
    name: str

    def get(self) -> Any:
        """Return the attribute, `MISSING` if it is not set."""
        return getattr(self.holder, self.name, MISSING)

    def set(self, value: Any) -> None:
        """Replace the attribute, also of a frozen dataclass or a class."""
        if isinstance(self.holder, type):
            setattr(self.holder, self.name, value)
        elif value is not MISSING:
            object.__setattr__(self.holder, self.name, value)
        elif self.get() is not MISSING:
            object.__delattr__(self.holder, self.name)


@dataclass(frozen=True, eq=False)
class Cell:
    """A variable that a closure captured."""

    cell: CellType

    def get(self) -> Any:
        """Return the variable, `MISSING` before it is assigned."""
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
    """An element of a tuple: replacing it replaces the tuple in the slot where that lies."""

    parent: Slot
    index: int

    def get(self) -> Any:
        """Return the element, `MISSING` if something else than the tuple lies there now."""
        whole = self.parent.get()
        return whole[self.index] if isinstance(whole, tuple) else MISSING

    def set(self, value: Any) -> None:
        """Put a tuple of the same type that differs in this element in the place of the old."""
        whole = self.parent.get()
        values = (*whole[: self.index], value, *whole[self.index + 1 :])
        make = getattr(whole, "_make", type(whole))
        self.parent.set(make(values))


class Snapshot:
    """The content of a mutable holder, to compare with and to go back to.

    Parameters
    ----------
    path : str
        What to call the holder in messages.
    holder : dict, list, deque, set or Slot
        The holder; its content is copied shallowly.
    """

    def __init__(self, path: str, holder: Any) -> None:
        self.path = path
        self.holder = holder
        self.content = _content(holder)

    def changes(self) -> list[tuple[str, Any, Any]]:
        """Return ``(path, before, now)`` of every value that is another object than before."""
        if isinstance(self.holder, dict):
            now, old = _content(self.holder), self.content
            return [
                (f"{self.path}.{key}".lstrip("."), old.get(key, MISSING), now.get(key, MISSING))
                for key in {**old, **now}
                if old.get(key, MISSING) is not now.get(key, MISSING)
            ]
        if _same(_content(self.holder), self.content):
            return []
        return [(self.path, self.content, self.holder)]

    def restore(self) -> None:
        """Put the content back, in its order; an unchanged holder is not touched."""
        now = _content(self.holder)
        if isinstance(self.holder, dict):
            if list(now) != list(self.content) or not _same(now.values(), self.content.values()):
                _refill(self.holder, self.content)
        elif _same(now, self.content):
            return
        elif isinstance(self.holder, set):
            self.holder.clear()
            self.holder.update(self.content)
        elif isinstance(self.holder, list | deque):
            self.holder.clear()
            self.holder.extend(self.content)
        else:
            self.holder.set(*self.content)


def _content(holder: Any) -> Any:
    if isinstance(holder, dict):
        return dict(dict.items(holder))
    if isinstance(holder, list | deque | set):
        return list(holder)
    return [holder.get()]


def _same(left: Iterable[Any], right: Iterable[Any]) -> bool:
    """Tell whether the same objects stand in the same order; equality of tensors is no bool."""
    first, second = list(left), list(right)
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))


def _refill(holder: dict[Any, Any], content: dict[Any, Any]) -> None:
    base = OrderedDict if isinstance(holder, OrderedDict) else dict
    base.clear(holder)
    for key, value in content.items():
        base.__setitem__(holder, key, value)
