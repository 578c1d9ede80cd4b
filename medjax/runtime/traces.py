"""What is done around each trace of a step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

__all__ = ["around_traces", "tracing"]

Around = Callable[[], contextlib.AbstractContextManager[None]]

_around: ContextVar[Around] = ContextVar("medjax_traces", default=contextlib.nullcontext)


@contextlib.contextmanager
def around_traces(around: Around) -> Iterator[None]:
    """Enter a context around each trace of a step that this thread makes in the block.

    Parameters
    ----------
    around : callable
        Makes the context.

    Examples
    --------
    >>> @contextlib.contextmanager
    ... def told():
    ...     print("a trace begins")
    ...     yield
    >>> with around_traces(told), tracing():
    ...     pass
    a trace begins
    """
    token = _around.set(around)
    try:
        yield
    finally:
        _around.reset(token)


def tracing() -> contextlib.AbstractContextManager[None]:
    """Return the context of a trace; it does nothing outside of `around_traces`."""
    return _around.get()()
