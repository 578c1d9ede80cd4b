"""What a run is waiting for, told to whoever shows it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import jax

__all__ = ["size_of", "tell_wait", "telling", "waiting_for"]


class _Listener:
    """Passes on each reason to wait, and remembers the last."""

    def __init__(self, tell: Callable[[str | None], None]) -> None:
        self._tell = tell
        self.reason: str | None = None

    def __call__(self, reason: str | None) -> None:
        if reason != self.reason:
            self.reason = reason
            self._tell(reason)


_listener: ContextVar[_Listener | None] = ContextVar("medjax_waiting", default=None)


@contextlib.contextmanager
def telling(tell: Callable[[str | None], None]) -> Iterator[None]:
    """Have a function told what this thread waits for in the block.

    Parameters
    ----------
    tell : callable
        Gets the reason, or None when the wait is over.

    Examples
    --------
    >>> with telling(print):
    ...     with waiting_for("compiling 16 x 24"):
    ...         pass
    compiling 16 x 24
    None
    """
    token = _listener.set(_Listener(tell))
    try:
        yield
    finally:
        _listener.reset(token)


def tell_wait(reason: str | None) -> None:
    """Tell that a wait begins, or with None that it is over; nothing happens if nobody listens."""
    listener = _listener.get()
    if listener is not None:
        listener(reason)


@contextlib.contextmanager
def waiting_for(reason: str) -> Iterator[None]:
    """Tell why the block takes a while; afterwards the reason before it holds again."""
    listener = _listener.get()
    before = None if listener is None else listener.reason
    tell_wait(reason)
    try:
        yield
    finally:
        tell_wait(before)


def size_of(batch: Any) -> str:
    """Return the shape of the largest column of a batch, as people write it.

    Parameters
    ----------
    batch : pytree
        Its columns.

    Examples
    --------
    >>> import numpy as np
    >>> size_of({"input_ids": np.zeros((16, 64)), "row_mask": np.zeros(16)})
    '16 x 64'
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(batch) if getattr(leaf, "shape", ())]
    return " x ".join(map(str, max(shapes, key=math.prod))) if shapes else "a batch"
