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

    A tracer and a reader make hundreds of thousands of objects that stay, which is what brings on a
    collection, and each visits all objects of all imported libraries: without this a tenth of the
    time before the first step. Thresholds that are higher already, and collection that is switched
    off, stay as they are.

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
