"""The state of a torch optimizer while JAX trains: current when read, adopted when written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

State = defaultdict[Any, Any]
Token = list[tuple[int, list[tuple[str, Any]]]]
"""Tells whether entries were added, removed, replaced or written to."""


class _Noticing(State):
    """A state that calls `bring` before it is used."""

    bring: Callable[[], None]

    def __reduce__(self) -> Any:
        """Pickle and copy as a state of torch's own class."""
        return State, (dict, self.copy())

    def copy(self) -> Any:
        """Return a copy of torch's own class."""
        return State(dict, self.items())

    __copy__ = copy


def _noticed(name: str) -> Any:
    method = getattr(State, name)

    def call(self: _Noticing, *arguments: Any, **options: Any) -> Any:
        self.bring()
        return method(self, *arguments, **options)

    call.__name__ = name
    return call


_USES = (
    "__getitem__",
    "__setitem__",
    "__delitem__",
    "__contains__",
    "__iter__",
    "__len__",
    "__eq__",
    "__or__",
    "__ior__",
    "__repr__",
    "get",
    "keys",
    "values",
    "items",
    "pop",
    "popitem",
    "clear",
    "update",
    "setdefault",
)
"""The methods of a dict by which user code reads it or writes to it."""

for _name in _USES:
    setattr(_Noticing, _name, _noticed(_name))


class LivingState:
    """Watches ``optimizer.state``, whose newest values are on the device.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer.
    bring : callable
        Writes the newest values into the state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, bring: Callable[[], None]) -> None:
        self._optimizer = optimizer
        self._bring = bring
        self._is_current = False
        self._is_ours = False
        self._watch()

    def outdate(self) -> None:
        """Note that the device has newer values."""
        self._is_current = False

    def brought(self) -> None:
        """Note that the state has the newest values.

        Reading it then asks no device: of several processes only one may read it, to save it.
        """
        self._is_current = True

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let this package use the state as it is, and take what it writes for what is known."""
        before, self._is_ours = self._is_ours, True
        try:
            yield
        finally:
            self._is_ours = before
        self._known = self._token()
        # While they exist, no other tensor can have the same identity.
        self._held = [v for _, entries in self._entries() for v in entries.values()]

    def is_written(self) -> bool:
        """Return whether other code has changed the state since this package last wrote it."""
        return self._optimizer.state is not self._state or self._token() != self._known

    def rewatch(self) -> None:
        """Watch the state that the optimizer has now; `load_state_dict` makes another one."""
        if self._optimizer.state is not self._state:
            self._watch()
        self._is_current = True

    def release(self) -> None:
        """Give the optimizer a state of torch's own class."""
        if self._optimizer.state is self._state:
            self._is_ours = True
            self._optimizer.state = State(dict, self._state)

    def _watch(self) -> None:
        self._state = _Noticing(dict, self._optimizer.state)
        self._state.bring = self._notice
        self._optimizer.state = self._state
        with self.aside():
            pass

    def _notice(self) -> None:
        if self._is_ours or self._is_current or self._optimizer.state is not self._state:
            return
        self._is_current = True
        with self.aside():
            self._bring()

    def _token(self) -> Token:
        return [
            (id(key), [(str(name), _noted(value)) for name, value in entries.items()])
            for key, entries in self._entries()
        ]

    def _entries(self) -> list[tuple[Any, dict[Any, Any]]]:
        # Not by the methods of the state, which would bring what is on the device.
        return [(k, v) for k, v in dict.items(self._state) if isinstance(v, dict)]


def _noted(value: Any) -> Any:
    return (id(value), value._version) if isinstance(value, Tensor) else value
