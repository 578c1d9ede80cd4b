"""Shares: the part of every batch that one of several processes reads.

All processes know the order of the items, so each knows which rows of a batch are on its devices,
and preprocesses only those. The lengths of all rows must be known to every process: batches are
grouped by length and padded to the longest. Each item is measured once, by one process, which
publishes the lengths for the others, one window of batches at a time. An item whose preprocessing
draws random numbers is measured in every epoch. The batches are the same as with one process, so a
run can be resumed with any number of processes.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.data.ladder import Ladder
from medjax.data.source import Example, ExampleSource
from medjax.distributed import fetch, publish, retract

__all__ = ["Cut", "Share", "ShareReader"]

_KEPT = 64  # windows whose lengths stay published; no process lags that far behind another

_numbers = itertools.count()

Cut = Callable[[int, int, np.ndarray], list[np.ndarray]]
"""``cut(epoch, window, lengths)`` returns the positions of each batch in the window."""


class Share(NamedTuple):
    """The part of a batch that a process reads.

    Attributes
    ----------
    indices : numpy.ndarray
        Positions in the dataset of all items of the batch, shape (items,), int64.
    rows : numpy.ndarray
        Rows of the batch that this process reads, increasing, shape (rows read,).
    examples : list
        Their examples; for a process without rows, the example of the first item, to pad with.
    longest : int
        Length of the longest example in the complete batch.
    """

    indices: np.ndarray
    rows: np.ndarray
    examples: list[Example]
    longest: int


class ShareReader:
    """Reads the shares of this process.

    All processes must create their readers in the same order.

    Parameters
    ----------
    source : ExampleSource
        Preprocesses the items.
    ladder : Ladder
        Measures the examples.
    rows : numpy.ndarray
        Rows of a full batch that are on the devices of this process, increasing.
    cut : callable
        Cuts a window into batches.
    nb_items : int
        Number of items in the dataset.
    grouped : bool
        Whether `cut` uses the lengths; if not, a window is one batch.
    is_random : bool
        Whether preprocessing draws random numbers.
    """

    def __init__(
        self,
        source: ExampleSource,
        ladder: Ladder,
        rows: np.ndarray,
        cut: Cut,
        *,
        nb_items: int,
        grouped: bool,
        is_random: bool,
    ) -> None:
        self._source = source
        self._ladder = ladder
        self._rows = rows
        self._cut = cut
        self._grouped = grouped
        self._is_random = is_random
        self._name = f"lengths/{next(_numbers)}"
        self._known = np.full(nb_items, -1, np.int64)
        self._published: dict[str, None] = {}

    def read(
        self, epoch: int, windows: Iterable[tuple[int, np.ndarray]], cancelled: threading.Event
    ) -> Iterator[Share]:
        """Yield the shares of numbered windows of items; the next window is already being read."""
        ahead: list[tuple[int, np.ndarray, Callable[[], dict[int, Example]]]] = []
        for number, indices in windows:
            ahead.append((number, indices, self._submit(epoch, indices, self._measured(indices))))
            if len(ahead) > 1:
                yield from self._window(epoch, *ahead.pop(0), cancelled)
        for submitted in ahead:
            yield from self._window(epoch, *submitted, cancelled)

    def _measured(self, indices: np.ndarray) -> np.ndarray:
        """Return the positions in a window that this process measures."""
        if not self._is_random and (self._known[indices] >= 0).all():
            return np.zeros(0, np.int64)
        if not self._grouped:
            return self._rows[self._rows < len(indices)]
        return np.arange(jax.process_index(), len(indices), jax.process_count())

    def _submit(
        self, epoch: int, indices: np.ndarray, positions: np.ndarray
    ) -> Callable[[], dict[int, Example]]:
        if not len(positions):
            return dict
        result = self._source.submit(epoch, indices[positions])
        return lambda: dict(zip(positions.tolist(), result(), strict=True))

    def _window(
        self,
        epoch: int,
        number: int,
        indices: np.ndarray,
        measured: Callable[[], dict[int, Example]],
        cancelled: threading.Event,
    ) -> Iterator[Share]:
        examples = measured()
        lengths = self._lengths(f"{self._name}/{epoch}/{number}", indices, examples, cancelled)
        batches = self._cut(epoch, number, lengths)
        own_rows = [self._rows[self._rows < len(batch)] for batch in batches]
        own_positions = [
            batch[rows if len(rows) else [0]] for batch, rows in zip(batches, own_rows, strict=True)
        ]
        needed = np.concatenate(own_positions)
        missing = [position for position in needed if position not in examples]
        examples |= self._submit(epoch, indices, np.array(missing, np.int64))()
        for batch, rows, positions in zip(batches, own_rows, own_positions, strict=True):
            yield Share(
                indices[batch],
                rows,
                [examples[position] for position in positions.tolist()],
                int(lengths[batch].max()),
            )

    def _lengths(
        self,
        key: str,
        indices: np.ndarray,
        examples: dict[int, Example],
        cancelled: threading.Event,
    ) -> np.ndarray:
        """Return the length of every item of a window."""
        lengths = np.full(len(indices), -1) if self._is_random else self._known[indices]
        for position, example in examples.items():
            lengths[position] = self._ladder.length_of(example)
        own = {str(position): int(lengths[position]) for position in np.flatnonzero(lengths >= 0)}
        self._publish(key, json.dumps(own))
        for process in range(jax.process_count()):
            if (lengths >= 0).all():
                break
            if process != jax.process_index():
                for position, length in json.loads(fetch(key, process, cancelled)).items():
                    lengths[int(position)] = length
        if not self._is_random:
            self._known[indices] = lengths
        return lengths

    def _publish(self, key: str, value: Any) -> None:
        # Even if this process needs no lengths from others: another may not know all of them yet.
        publish(key, value)
        self._published.pop(key, None)
        self._published[key] = None
        if len(self._published) > _KEPT:
            oldest = next(iter(self._published))
            del self._published[oldest]
            retract(oldest)
