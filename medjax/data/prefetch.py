"""Preparing the next batches while the device computes, in a thread where that pays."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_CHEAP = 1e-3  # seconds for an item in which a thread gains nothing: handing over takes as long
_DEBT = 0.05  # seconds beyond that, over all items, after which the thread is started
_POLL = 0.1  # seconds between looks at whether the consumer has gone
_PATIENCE = 5.0  # seconds the end waits for an item in work; the thread is a daemon


def prefetch(iterator: Iterator[T], size: int) -> Generator[T]:
    """Yield what `iterator` yields, computed in a thread up to `size` items ahead if it is slow.

    The device works on while the next step is prepared, so a thread does not pay for items that
    take less than a millisecond. They are computed in the calling thread until they have taken too
    long; then the rest is computed ahead. An exception of the iterator is raised where its item
    would have come. Closing the generator ends the thread.

    Parameters
    ----------
    iterator : iterator
        Used by one thread at a time.
    size : int
        Items to hold ready.

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


def _ahead(iterator: Iterator[T], size: int) -> Generator[T]:
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(size)
    gone = threading.Event()

    def offer(kind: str, value: Any) -> None:
        while not gone.is_set():
            try:
                ready.put((kind, value), timeout=_POLL)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in iterator:
                offer("item", item)
                if gone.is_set():
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
        gone.set()
        thread.join(_PATIENCE)
