"""DataLoader: the batches of an epoch, ready on the device, from any position on."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import Collate, TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data.ladder import HUGGING_FACE_PADDING, Ladder, fix_shape
from medjax.data.order import batches_by_length, epoch_order
from medjax.data.prefetch import prefetch
from medjax.data.source import (
    Cache,
    Dataset,
    Example,
    Examples,
    ExampleSource,
    InProcess,
    Workers,
)


class Batch(NamedTuple):
    """A batch on its way through the loop.

    Attributes
    ----------
    device : BatchData
        Array columns with ``row_mask``, padded and laid out over the mesh.
    host : mapping
        What `collate` returned: a BatchData, or whatever mapping another source of batches has.
    indices : numpy.ndarray
        Positions of its items in the dataset, shape (rows,), int64.
    """

    device: BatchData
    host: Any
    indices: np.ndarray


class Batches(Protocol):
    """What the loop needs of a loader."""

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        ...

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the dataset positions of the items of one batch."""
        ...


class DataLoader:
    """Batches of a dataset, as a function of epoch and position; made by `get_dataloader`.

    Parameters
    ----------
    source : ExampleSource
        Preprocessed examples.
    nb_items : int
        Length of the dataset.
    collate : Collate
        Examples to batch.
    batch_size : int
        Rows of a batch before padding.
    seed : int
        Seed of the order.
    shuffle : bool
        Whether the order changes with the epoch.
    ladder : Ladder
        Lengths and columns to pad.
    window : int
        Batches grouped by length together; 0 for none.
    mesh : jax.sharding.Mesh
        Where batches go.
    options : Options
        For `prefetch` and `max_shapes`.
    """

    def __init__(
        self,
        source: ExampleSource,
        nb_items: int,
        collate: Collate,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        ladder: Ladder,
        window: int,
        mesh: Mesh,
        options: Options,
    ) -> None:
        self.nb_items = nb_items
        self.batch_size = batch_size
        self._source = source
        self._collate = collate
        self._seed = seed
        self._shuffle = shuffle
        self._ladder = ladder
        self._window = window
        self._mesh = mesh
        self._options = options
        self._shapes: set[tuple[Any, ...]] = set()

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return -(-self.nb_items // self.batch_size)

    @property
    def ragged(self) -> set[str]:
        """Names of the columns that are padded to the length ladder."""
        return set(self._ladder.fills)

    @property
    def nb_shapes(self) -> int:
        """Number of distinct batch shapes handed out so far."""
        return len(self._shapes)

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch from number `start` on, prepared ahead in a thread.

        Parameters
        ----------
        epoch : int
            Epoch, counted from 1.
        start : int
            Batches to leave out; their items are not even read, but for those of the same window.

        Raises
        ------
        ItemError
            If an item raises.
        WorkerError
            If a worker dies or hangs.
        ValueError
            If a batch has a shape the ladder does not hold, or there are too many shapes.
        """
        return prefetch(self._prepare(epoch, start), self._options.prefetch)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the dataset positions of the items of one batch."""
        indices, _ = next(self._examples(epoch, batch))
        return [int(index) for index in indices]

    def close(self) -> None:
        """End the worker processes, if there are any."""
        self._source.close()

    def _prepare(self, epoch: int, start: int) -> Iterator[Batch]:
        nb_rows = sharding.rows_per_batch(self.batch_size, self._mesh)
        for indices, examples in self._examples(epoch, start):
            host = self._collate(examples)
            if host.nb_rows != len(examples):
                msg = f"collate returned {host.nb_rows} rows for {len(examples)} examples"
                raise ValueError(f"{msg}; expected one row for each")
            fixed = fix_shape(host, self._ladder, nb_rows)
            self._count_shape(fixed)
            yield Batch(sharding.put_batch(fixed, self._mesh), host, indices)

    def _examples(self, epoch: int, start: int) -> Iterator[tuple[np.ndarray, list[Example]]]:
        """Yield items and examples of each batch, reading a window of batches at a time."""
        order = np.arange(self.nb_items)
        if self._shuffle:
            order = epoch_order(self._seed, epoch, self.nb_items)
        per_window = max(self._window, 1)
        first = start // per_window
        size = per_window * self.batch_size
        windows = [order[i : i + size] for i in range(first * size, self.nb_items, size)]
        batches = itertools.chain.from_iterable(
            self._cut(epoch, first + number, indices, examples)
            for number, (indices, examples) in enumerate(self._read_ahead(epoch, windows))
        )
        yield from itertools.islice(batches, start - first * per_window, None)

    def _read_ahead(
        self, epoch: int, windows: list[np.ndarray]
    ) -> Iterator[tuple[np.ndarray, list[Example]]]:
        """Yield windows with their examples, with the next one already submitted."""
        ahead = 1 if self._window else self._options.prefetch
        waiting: collections.deque[Any] = collections.deque()
        for indices in windows:
            waiting.append((indices, self._source.submit(epoch, indices)))
            if len(waiting) > ahead:
                done, result = waiting.popleft()
                yield done, result()
        while waiting:
            done, result = waiting.popleft()
            yield done, result()

    def _cut(
        self, epoch: int, window: int, indices: np.ndarray, examples: list[Example]
    ) -> Iterator[tuple[np.ndarray, list[Example]]]:
        if not self._window:
            yield indices, examples
            return
        lengths = [0] * len(examples)
        if self.ragged & examples[0].keys():  # else there is nothing to measure
            lengths = [self._ladder.length_of(example) for example in examples]
        for batch in batches_by_length(
            lengths,
            self.batch_size,
            seed=self._seed,
            epoch=epoch,
            window=window,
            shuffle=self._shuffle,
        ):
            yield indices[batch], [examples[position] for position in batch]

    def _count_shape(self, batch: BatchData) -> None:
        shape = tuple(sorted((name, column.shape) for name, column in batch.items()))
        if shape in self._shapes:
            return
        if len(self._shapes) == self._options.max_shapes:
            seen = [dict(known) for known in self._shapes]
            new = [f"{n!r} {s}" for n, s in shape if all(known.get(n) != s for known in seen)]
            msg = (
                f"the batch has a new shape after {len(seen)} others: column {', '.join(new)}. "
                "Each shape costs a compilation; pad the column to the length ladder with "
                "Options(padding={column: fill}), pad it in collate, or raise max_shapes"
            )
            raise ValueError(msg)
        self._shapes.add(shape)


def get_dataloader(
    data: Dataset,
    component: TrainableComponent,
    config: TrainerConfig,
    *,
    shuffle: bool,
    seed: int = 0,
    options: Options | None = None,
    mesh: Mesh | None = None,
) -> DataLoader:
    """Return the loader of a dataset for a component.

    Parameters
    ----------
    data : Dataset
        Anything with ``__len__`` and ``__getitem__``.
    component : TrainableComponent
        Its `preprocess` and `collate` are used.
    config : TrainerConfig
        For `batch_size` and `dataloader_nb_workers`.
    shuffle : bool
        Whether the order changes with the epoch.
    seed : int
        Seed of the order and of augmentation.
    options : Options, optional
        Lengths, grouping, cache and prefetch.
    mesh : jax.sharding.Mesh, optional
        Where batches go, by default all devices.

    Raises
    ------
    ValueError
        If the dataset has no length, no items, or cannot be sent to the workers asked for.
    """
    options = options or Options()
    padding = {**HUGGING_FACE_PADDING, **options.padding}
    nb_items = length_of(data)
    examples = Examples(data, component.preprocess, seed)
    source: ExampleSource = InProcess(examples)
    if config.dataloader_nb_workers:
        source = Workers(examples, config.dataloader_nb_workers, options.worker_timeout)
    if options.cache_preprocessed:
        source = Cache(source, examples)
    return DataLoader(
        source,
        nb_items,
        component.collate,
        batch_size=config.batch_size,
        seed=seed,
        shuffle=shuffle,
        ladder=Ladder(
            options.length_ladder,
            {name: fill for name, fill in padding.items() if fill is not None},
        ),
        window=options.length_window,
        mesh=mesh if mesh is not None else sharding.make_mesh(),
        options=options,
    )


def length_of(data: Dataset) -> int:
    """Return the number of items of a dataset; ValueError if it has no length or no items."""
    kind = type(data).__name__
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        msg = (
            f"the data is a {kind}; expected an object with __len__ and __getitem__, such as a "
            "list or a map-style dataset. Turn a stream into a list first"
        )
        raise ValueError(msg)
    nb_items = len(data)
    if nb_items == 0:
        raise ValueError(f"the data, a {kind}, has no items; expected at least one")
    return nb_items
