"""A thread that prepares the next batches while the device computes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

_POLL = 0.1  # seconds between looks at whether the consumer has gone
_PATIENCE = 5.0  # seconds the end waits for an item in work; the thread is a daemon


def prefetch(iterator: Iterator[T], size: int) -> Generator[T]:
    """Yield what `iterator` yields, up to `size` items ahead, computed in a thread.

    An exception of the iterator is raised where its item would have come. Closing the generator
    ends the thread.

    Parameters
    ----------
    iterator : iterator
        Used by the thread alone.
    size : int
        Items to hold ready.

    Examples
    --------
    >>> list(prefetch(iter("abc"), 2))
    ['a', 'b', 'c']
    """
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
