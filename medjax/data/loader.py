"""DataLoader: the batches of an epoch, on the device, from any position in it."""

from __future__ import annotations

import collections
import itertools
import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import ROW_MASK, BatchData
from medjax.component import Collate, ExpandedData
from medjax.config import Options
from medjax.data.batches import Batch
from medjax.data.dataset import Dataset, origins_of
from medjax.data.ladder import Ladder, fix_shape
from medjax.data.order import batches_by_rung, drawn_order, epoch_order
from medjax.data.policy import ShapeLimit
from medjax.data.prefetch import prefetch
from medjax.data.shares import ShareReader
from medjax.data.source import (
    Example,
    ExampleSource,
)

__all__ = ["DataLoader"]

logger = logging.getLogger("medjax")

_RAGGED = 4
"""Number of distinct lengths after which a warning names a column that is not padded."""


class _WindowRead(NamedTuple):
    """The examples of a window that was read before its epoch began.

    Attributes
    ----------
    epoch, number : int
        The epoch, and the number of the window in it.
    examples : list of dict
        Its examples.
    """

    epoch: int
    number: int
    examples: list[Example]


class DataLoader:
    """Yields the batches of a dataset, as a function of epoch and position.

    Create one with `get_dataloader`, which has an example.

    Parameters
    ----------
    data : Dataset
        The items.
    source : ExampleSource
        Preprocesses them.
    collate : Collate
        Joins examples to a batch.
    batch_size : int
        Rows of a batch before padding.
    seed : int
        Seed of the order.
    shuffle : bool
        Whether each epoch has a random order of its own.
    ladder : Ladder
        Lengths to pad to, and columns that are padded.
    window : int
        Number of batches that are grouped by length together; 0 for no grouping.
    mesh : jax.sharding.Mesh
        Where batches are put.
    options : Options
        For `prefetch` and `max_shapes`.
    is_random : bool
        Whether preprocessing draws random numbers.
    """

    def __init__(
        self,
        data: Dataset,
        source: ExampleSource,
        collate: Collate,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        ladder: Ladder,
        window: int,
        mesh: Mesh,
        options: Options,
        is_random: bool = False,
    ) -> None:
        self.nb_items = len(data)
        self._data = data
        self._weights = data.weights if isinstance(data, ExpandedData) else None
        self.batch_size = batch_size
        self._source = source
        self._collate = collate
        self._seed = seed
        self._shuffle = shuffle
        self._ladder = ladder
        self._window = window
        self._mesh = mesh
        self._options = options
        self._shapes = ShapeLimit(options.max_shapes)
        self._named: set[str] = set()
        self._nb_rows = sharding.rows_per_batch(batch_size, mesh)
        self._window_read: _WindowRead | None = None
        self._shares: ShareReader | None = None
        if jax.process_count() > 1:
            self._shares = ShareReader(
                source,
                ladder,
                rows=sharding.local_rows(self._nb_rows, mesh),
                cut=self._cut,
                nb_items=self.nb_items,
                grouped=window > 0,
                is_random=is_random,
            )

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-self.nb_items // self.batch_size)

    @property
    def ragged(self) -> set[str]:
        """Names of the columns that are padded to the length ladder."""
        return set(self._ladder.fills)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that batches are padded to, without those beyond what was expected."""
        expected = self._ladder.expected or self._ladder.lengths[-1]
        return tuple(length for length in self._ladder.lengths if length <= expected)

    @property
    def nb_shapes(self) -> int:
        """Number of distinct batch shapes so far."""
        return len(self._shapes)

    def __iter__(self) -> Iterator[Batch]:
        """Refuse to iterate, as the order depends on the epoch."""
        msg = (
            "a medjax DataLoader is not iterable, since each epoch has an order of its own; "
            "expected loader.batches(epoch), with epochs from 1"
        )
        raise TypeError(msg)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch, beginning with number `start`, prepared ahead in a thread.

        Parameters
        ----------
        epoch : int
            Epoch, counted from 1.
        start : int
            Batches to skip. Their items are not read, except those in the window of batch `start`.

        Raises
        ------
        ItemError
            If an item raises.
        WorkerError
            If a worker dies or hangs.
        ValueError
            If a batch does not fit the ladder, or there are too many shapes.
        """
        if self._window_read is None:  # otherwise `first_of_shapes` has noticed changes
            self._source.renew()
        if self._shares is None:
            return prefetch(self._prepare(epoch, start), self._options.prefetch)
        return self._shared(self._shares, epoch, start)

    def first_of_shapes(self, epoch: int, start: int = 0, *, keep: bool = False) -> Iterator[Batch]:
        """Yield the first batch of each shape in the window of batch `start`, from that one on.

        There are none where items are not grouped by length, nor with several processes, nor after
        the last batch, where a run stands that was interrupted while it evaluated.

        Parameters
        ----------
        epoch, start
            As for `batches`.
        keep : bool
            Whether the next call of `batches` takes over the examples of the window instead of
            reading its items again.

        Raises
        ------
        ItemError, WorkerError, ValueError
            As for `batches`.
        """
        if not self._window or self._shares is not None or start >= len(self):
            return
        self._source.renew()
        windows, skipped = self._windows(epoch, start)
        number, indices = windows[0]
        examples = self._source.submit(epoch, indices)()
        if keep:
            self._window_read = _WindowRead(epoch, number, examples)
        seen: set[int] = set()
        cut = self._cut_examples(epoch, number, indices, examples)
        for items, batch in itertools.islice(cut, skipped, None):
            rungs = self._ladder.rungs([self._ladder.length_of(example) for example in batch])
            if rungs.max() not in seen:
                seen.add(rungs.max())
                yield self._on_device(items, batch)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the positions in the dataset of the items of one batch."""
        indices, _ = next(self._examples(epoch, batch))
        return origins_of(self._data, indices.tolist())

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self._source.close()

    def _prepare(self, epoch: int, start: int) -> Iterator[Batch]:
        for indices, examples in self._examples(epoch, start):
            yield self._on_device(indices, examples)

    def _on_device(self, indices: np.ndarray, examples: list[Example]) -> Batch:
        host = self._collated(examples)
        fixed = fix_shape(host, self._ladder, self._nb_rows)
        self._count_shape(fixed)
        return Batch(sharding.put_batch(fixed, self._mesh), host, indices)

    def _shared(self, shares: ShareReader, epoch: int, start: int) -> Generator[Batch]:
        """Yield batches of which each process reads a share; closing the generator ends that."""
        cancelled = threading.Event()
        prepared = prefetch(
            self._prepare_shares(shares, epoch, start, cancelled), self._options.prefetch
        )
        try:
            yield from prepared
        finally:
            cancelled.set()
            prepared.close()

    def _prepare_shares(
        self, shares: ShareReader, epoch: int, start: int, cancelled: threading.Event
    ) -> Iterator[Batch]:
        rows = sharding.local_rows(self._nb_rows, self._mesh)
        windows, skipped = self._windows(epoch, start)
        for share in itertools.islice(shares.read(epoch, windows, cancelled), skipped, None):
            host = self._collated(share.examples)
            fixed = fix_shape(host, self._ladder, len(rows), share.longest)
            fixed[ROW_MASK][len(share.rows) :] = 0.0  # an example that only pads is not a row
            self._count_shape(fixed)
            device = sharding.put_rows(fixed, self._mesh, rows)
            yield Batch(device, host, share.indices, share.rows)

    def _collated(self, examples: list[Example]) -> BatchData:
        host = self._collate(examples)
        if host.nb_rows != len(examples):
            msg = f"collate returned {host.nb_rows} rows for {len(examples)} examples"
            raise ValueError(f"{msg}; expected one row for each")
        return host

    def _windows(self, epoch: int, start: int) -> tuple[list[tuple[int, np.ndarray]], int]:
        """Return the numbered windows from batch `start` on, and how many batches to skip."""
        order = np.arange(self.nb_items)
        if self._shuffle and self._weights is not None:
            order = drawn_order(self._seed, epoch, self._weights)
        elif self._shuffle:
            order = epoch_order(self._seed, epoch, self.nb_items)
        per_window = max(self._window, 1)
        first = start // per_window
        size = per_window * self.batch_size
        windows = [order[i : i + size] for i in range(first * size, self.nb_items, size)]
        return list(enumerate(windows, first)), start - first * per_window

    def _examples(self, epoch: int, start: int) -> Iterator[tuple[np.ndarray, list[Example]]]:
        """Yield the items and examples of each batch, reading one window of batches at a time."""
        windows, skipped = self._windows(epoch, start)
        batches = itertools.chain.from_iterable(
            self._cut_examples(epoch, number, indices, examples)
            for number, indices, examples in self._read_ahead(epoch, windows)
        )
        yield from itertools.islice(batches, skipped, None)

    def _read_ahead(
        self, epoch: int, windows: list[tuple[int, np.ndarray]]
    ) -> Iterator[tuple[int, np.ndarray, list[Example]]]:
        """Yield windows with their examples; the next window is already being read."""
        nb_ahead = 1 if self._window else self._options.prefetch
        submitted: collections.deque[Any] = collections.deque()
        for number, indices in windows:
            submitted.append((number, indices, self._submit(epoch, number, indices)))
            if len(submitted) > nb_ahead:
                first, first_indices, result = submitted.popleft()
                yield first, first_indices, result()
        while submitted:
            first, first_indices, result = submitted.popleft()
            yield first, first_indices, result()

    def _submit(self, epoch: int, window: int, indices: np.ndarray) -> Callable[[], list[Example]]:
        """Start reading a window, unless `first_of_shapes` has."""
        read, self._window_read = self._window_read, None
        if read is not None and (read.epoch, read.number) == (epoch, window):
            return lambda: read.examples
        return self._source.submit(epoch, indices)

    def _cut_examples(
        self, epoch: int, window: int, indices: np.ndarray, examples: list[Example]
    ) -> Iterator[tuple[np.ndarray, list[Example]]]:
        if not self._window:
            yield indices, examples
            return
        lengths = np.zeros(len(examples), np.int64)
        if self.ragged & examples[0].keys():  # otherwise there is nothing to measure
            lengths = np.array([self._ladder.length_of(example) for example in examples])
        for batch in self._cut(epoch, window, lengths):
            yield indices[batch], [examples[position] for position in batch]

    def _cut(self, epoch: int, window: int, lengths: np.ndarray) -> list[np.ndarray]:
        """Return the batches of a window, as positions in it."""
        if not self._window:
            return [np.arange(len(lengths))]
        return batches_by_rung(
            self._ladder.rungs(lengths),
            self.batch_size,
            seed=self._seed,
            epoch=epoch,
            window=window,
            shuffle=self._shuffle,
        )

    def _count_shape(self, batch: BatchData) -> None:
        shape = tuple(sorted((name, column.shape) for name, column in batch.items()))

        def explain() -> tuple[str, str]:
            seen = [dict(known) for known in self._shapes.seen]
            new = [f"{n!r} {s}" for n, s in shape if all(known.get(n) != s for known in seen)]
            return f"column {', '.join(new)}", (
                "Each shape costs a compilation; pad the column to the length ladder with "
                "Options(padding={column: fill}), or pad it in collate"
            )

        if not self._shapes.add(shape, explain):
            return
        self._warn_of_ragged()
        self._tell_of_longer(batch)

    def _tell_of_longer(self, batch: BatchData) -> None:
        """Say that a batch has a length that the fitted ladder did not expect."""
        for name, column in batch.items():
            expected = self._ladder.expected
            if expected and name in self._ladder.fills and column.shape[1:2] > (expected,):
                logger.warning(
                    "Column %r is padded to %d, beyond the %s that were fitted to the data: one "
                    "more shape to compile",
                    name,
                    column.shape[1],
                    ", ".join(map(str, self.lengths)),
                )
                return

    def _warn_of_ragged(self) -> None:
        """Warn once about each column that has many lengths and is not padded to the ladder."""
        lengths = collections.defaultdict(set)
        for shape in self._shapes.seen:
            for name, sizes in shape:
                if len(sizes) > 1 and name not in self._ladder.fills:
                    lengths[name].add(sizes[1])
        ragged = {name: sizes for name, sizes in lengths.items() if len(sizes) == _RAGGED}
        for name in ragged.keys() - self._named:
            self._named.add(name)
            logger.warning(
                "The column %r has had the lengths %s, and each new one costs a compilation: set "
                "Options(padding={%r: fill}) to pad it to the length ladder, or pad it in collate",
                name,
                ", ".join(map(str, sorted(ragged[name]))),
                name,
            )
