"""Recording what forward reads from a batch besides its tensors.

Such values are constants in a graph, so the graph is valid only for batches in which they are the
same. Values that forward does not read may differ: texts and identifiers do in every batch.
"""

from __future__ import annotations

import functools
from collections import UserDict
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from medjax_torch.component_state.locations import MISSING
from medjax_torch.component_state.watch.places import token
from medjax_torch.graph.batch_columns import columns


class ColumnReads:
    """Records of which columns the value is read, and of which only the presence is tested.

    Attributes
    ----------
    values : set of str
        Columns whose value was read, even if they are missing.
    names : set of str
        Columns whose presence was tested.
    all_names : bool
        Whether all names were read.
    """

    def __init__(self) -> None:
        self.values: set[str] = set()
        self.names: set[str] = set()
        self.all_names = False

    def of(self, batch: Mapping[str, Any], without: Collection[str | None] = ()) -> Any:
        """Return a token, equal for batches that, apart from tensors, look the same to forward.

        Parameters
        ----------
        batch : mapping of str to value
            The batch.
        without : collection of str
            Columns whose values are ignored.
        """
        values = [(n, self._token(n, batch)) for n in sorted(self.values) if n not in without]
        names = sorted(batch) if self.all_names else [n for n in sorted(self.names) if n in batch]
        return values, names

    def _token(self, name: str, batch: Mapping[str, Any]) -> Any:
        value = batch.get(name, MISSING)
        # The signature covers columns with tensors, including the other values in them.
        return "tensors" if columns({name: value}) else token(value)

    def wrap(self, batch: Any) -> Any:
        """Return a batch that records reads; its class is a subclass of the batch's."""
        kind: Any = type(batch)
        if kind is dict:
            recording = _recording(dict)(batch)
        elif isinstance(batch, dict):
            recording, batch.__class__ = batch, _recording(kind)
        elif isinstance(batch, UserDict):
            recording = object.__new__(_recording(kind))
            recording.__dict__.update(batch.__dict__)
        else:
            self.values.update(batch)  # reads of other mappings cannot be recorded: assume all
            self.all_names = True
            return batch
        recording.__dict__[_KEY] = self
        return recording


_KEY, _INSIDE = "_medjax_reads", "_medjax_inside"


class _BulkName(str):
    """A column name from iterating over a batch: fetching its value does not count as reading."""

    __slots__ = ()


class _Recording:
    """Mixin for the class of a batch."""

    __slots__ = ()

    def __getitem__(self, name: Any) -> Any:
        if self._is_inside():
            return super().__getitem__(name)  # type: ignore[misc]
        if not isinstance(name, str):  # rows of all columns
            _reads(self).values.update(self._plain_names())
            return self._raw(name)
        return self._handed(name, self._raw(str(name)))

    def get(self, name: Any, default: Any = None) -> Any:
        if self._is_inside():
            return super().get(name, default)  # type: ignore[misc]
        if self._has(name):
            return self[name]
        _reads(self).names.add(name)
        return default

    def pop(self, name: Any, *default: Any) -> Any:
        base: Any = super()
        _reads(self).names.add(name)
        value = self[name] if self._has(name) else None
        popped = base.pop(name, *default)
        return popped if value is None else value

    def setdefault(self, name: Any, default: Any = None) -> Any:
        if not self._has(name):
            self[name] = default  # type: ignore[index]
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and not self._is_inside():
            _reads(self).names.add(str(name))
        return self._has(name)

    def __iter__(self) -> Iterator[str]:
        if self._is_inside():
            return iter(self._plain_names())
        _reads(self).all_names = True
        return map(_BulkName, self._plain_names())

    def keys(self) -> Any:
        return dict.fromkeys(self).keys()

    def items(self) -> Any:
        if self._is_inside():
            return super().items()  # type: ignore[misc]
        return {name: self[name] for name in self}.items()

    def values(self) -> Any:
        return dict(self.items()).values()

    def copy(self) -> Any:
        return dict(self.items())

    def to_device(self, device: Any) -> Any:
        """Move tensors without recording reads."""
        raw = {name: self._raw(name) for name in self._plain_names()}
        moved = {n: v.to(device) if isinstance(v, Tensor) else v for n, v in raw.items()}
        new = type(self).__mro__[2](moved)
        return _reads(self).wrap(new)

    def _plain_names(self) -> list[str]:
        base: Any = super()
        return [str(name) for name in base.__iter__()]

    def _raw(self, name: Any) -> Any:
        """Return what the user's class returns, whose methods may call each other."""
        base: Any = super()
        self.__dict__[_INSIDE] = True
        try:
            return base.__getitem__(name)
        finally:
            del self.__dict__[_INSIDE]

    def _is_inside(self) -> bool:
        """Return whether a method of the user's own class is running."""
        return _INSIDE in self.__dict__

    def _has(self, name: Any) -> bool:
        base: Any = super()
        return bool(base.__contains__(name))

    def _handed(self, name: str, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value
        reads = _reads(self)

        def note() -> None:
            reads.values.add(str(name))

        if type(name) is _BulkName and type(value) in _WATCHABLE and not _has_numbers(value):
            return _noticing(type(value), note, value)
        note()
        return value


def _reads(batch: Any) -> ColumnReads:
    reads: ColumnReads = batch.__dict__[_KEY]
    return reads


@functools.cache
def _recording(kind: type) -> Any:
    own = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    if not hasattr(kind, "to_device"):
        return type(kind.__name__, (_Plain, kind), own)
    return type(kind.__name__, (_Recording, kind), own)


class _Plain(_Recording):
    """Mixin for the class of a batch without `to_device`."""

    __slots__ = ()

    to_device: Any = property(lambda self: _lacking(self))


def _lacking(batch: Any) -> Any:
    raise AttributeError(f"{type(batch).__name__!r} object has no attribute 'to_device'")


_WATCHABLE = (str, list, tuple, dict)


def _has_numbers(value: Any) -> bool:
    """Return whether a list contains numbers or arrays, which C code reads unnoticed."""
    if isinstance(value, str):
        return False
    return any(
        isinstance(element, bool | int | float | np.ndarray | np.generic)
        or (isinstance(element, list | tuple) and _has_numbers(element))
        for element in value
    )


def _noticing(kind: type, note: Callable[[], None], value: Any) -> Any:
    """Return a copy of a string or container that calls `note` when it is used."""
    made = _noticing_class(kind)(value)
    made.__dict__["note"] = note
    return made


@functools.cache
def _noticing_class(kind: type) -> Any:
    unread = {"__new__", "__init__", "__getattribute__", "__class__", "__init_subclass__"}
    unread |= {"__subclasshook__", "__setattr__", "__delattr__", "__doc__", "__sizeof__"}

    def notifying(function: Any) -> Any:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            note = self.__dict__.get("note")
            if note is not None:
                note()
            return function(self, *args, **kwargs)

        return call

    methods = {
        name: notifying(getattr(kind, name))
        for name in dir(kind)
        if name not in unread and callable(getattr(kind, name))
    }
    if methods.get("__hash__") and kind is list:
        methods.pop("__hash__")
    return type(kind.__name__, (kind,), methods)
