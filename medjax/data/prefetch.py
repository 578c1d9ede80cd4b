"""Preparing the next batches while the device computes, in a thread if that is worthwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

__all__ = ["prefetch"]

_T = TypeVar("_T")

_CHEAP = 1e-3  # seconds for an item below which a thread gains nothing: a handover takes as long
_DEBT = 0.05  # seconds in excess of that, over all items, after which the thread is started
_POLL = 0.1  # seconds between checks whether the consumer is gone
_PATIENCE = 5.0  # seconds to wait at the end for an unfinished item; the thread is a daemon


def prefetch(iterator: Iterator[_T], size: int) -> Generator[_T]:
    """Yield what `iterator` yields, computed in a thread up to `size` items ahead if it is slow.

    The device keeps working while the next step is prepared, so a thread is not worthwhile for
    items that take less than a millisecond. Items are computed in the calling thread until they
    have taken too long; from then on, they are computed ahead. An exception of the iterator is
    raised in place of its item. Closing the generator ends the thread.

    Parameters
    ----------
    iterator : iterator
        Used by one thread at a time.
    size : int
        Number of items to prepare ahead.

    Examples
    --------
    >>> list(prefetch(iter("abc"), 2))
    ['a', 'b', 'c']
    """
    debt = 0.0
    while debt <= _DEBT:
        began = time.perf_counter()
        try:
            item = next(iterator)
        except StopIteration:
            return
        debt = max(0.0, debt + time.perf_counter() - began - _CHEAP)
        yield item
    yield from _ahead(iterator, size)


def _ahead(iterator: Iterator[_T], size: int) -> Generator[_T]:
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    closed = threading.Event()

    def offer(kind: str, value: Any) -> None:
        while not closed.is_set():
            try:
                ready.put((kind, value), timeout=_POLL)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in iterator:
                offer("item", item)
                if closed.is_set():
                    return
        except BaseException as error:
            offer("error", error)
        else:
            offer("end", None)

    thread = threading.Thread(target=work, name="medjax-prefetch", daemon=True)
    thread.start()
    try:
        while True:
            kind, value = ready.get()
            if kind == "error":
                raise value
            if kind == "end":
                return
            yield value
    finally:
        closed.set()
        thread.join(_PATIENCE)
