"""Shares: what one of several processes reads of every batch.

All processes know the order of the items, so each knows which rows of a batch lie on its devices,
and preprocesses those. What takes knowledge of every row is the length: batches are grouped by it
and padded to that of the longest. It is found once for each item, by one process, and told to the
others, a window of batches at a time; an item whose preprocessing draws random numbers is measured
in every epoch. The batches are those of one process, so that a run may go on with any number.
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

_KEPT = 64  # windows whose lengths stay published; no process is that far behind another

_numbers = itertools.count()

Cut = Callable[[int, int, np.ndarray], list[np.ndarray]]
"""Epoch, window and lengths to the positions of each batch in the window."""


class Share(NamedTuple):
    """What a process reads of a batch.

    Attributes
    ----------
    indices : numpy.ndarray
        Positions in the dataset of all items of the batch, shape (items,), int64.
    rows : numpy.ndarray
        Rows of the batch that this process reads, increasing, shape (rows read,).
    examples : list
        Their examples; for a process without rows that of the first item, so that there is
        something to pad with.
    longest : int
        Length of the longest example of the whole batch.
    """

    indices: np.ndarray
    rows: np.ndarray
    examples: list[Example]
    longest: int


class ShareReader:
    """Reads the shares of this process; the loaders of all processes must be made in one order.

    Parameters
    ----------
    source : ExampleSource
        Preprocessed examples.
    ladder : Ladder
        Measures them.
    rows : numpy.ndarray
        Rows of a full batch that lie on this process' devices, increasing.
    cut : callable
        Cuts a window into batches.
    nb_items : int
        Length of the dataset.
    grouped : bool
        Whether `cut` looks at lengths; if not, a window is one batch.
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
        """Yield the shares of numbered windows of items, with the next window already submitted."""
        ahead: list[tuple[int, np.ndarray, Callable[[], dict[int, Example]]]] = []
        for number, indices in windows:
            ahead.append((number, indices, self._submit(epoch, indices, self._measured(indices))))
            if len(ahead) > 1:
                yield from self._window(epoch, *ahead.pop(0), cancelled)
        for each in ahead:
            yield from self._window(epoch, *each, cancelled)

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
        mine = [self._rows[self._rows < len(batch)] for batch in batches]
        read = [
            batch[rows if len(rows) else [0]] for batch, rows in zip(batches, mine, strict=True)
        ]
        missing = [position for position in np.concatenate(read) if position not in examples]
        examples |= self._submit(epoch, indices, np.array(missing, np.int64))()
        for batch, rows, positions in zip(batches, mine, read, strict=True):
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
        # Also what this process need not be told: another may not know it yet.
        publish(key, value)
        self._published.pop(key, None)
        self._published[key] = None
        if len(self._published) > _KEPT:
            oldest = next(iter(self._published))
            del self._published[oldest]
            retract(oldest)
