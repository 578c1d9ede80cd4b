"""How often Python looks for garbage while many objects are made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_THRESHOLDS = (50_000, 20, 100)
"""Objects of the youngest generation, and collections of one before a collection of the next."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for unreachable cycles less often within the block, or the function.

    Tracing and reading make hundreds of thousands of objects that stay. So many new objects trigger
    full collections, each of which visits every object of every imported library; they took a tenth
    of the time before the first step. Higher thresholds, and a collector that is switched off, stay
    as they are.

    Examples
    --------
    >>> with rare_collections():
    ...     gc.get_threshold()
    (50000, 20, 100)
    """
    before = gc.get_threshold()
    youngest, *older = (max(pair) for pair in zip(before, _THRESHOLDS, strict=True))
    gc.set_threshold(youngest if before[0] else 0, *older)
    try:
        yield
    finally:
        gc.set_threshold(*before)
