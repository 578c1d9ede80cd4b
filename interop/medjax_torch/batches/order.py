"""Samplers whose order is a function of seed and epoch, and that can start at any batch."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch.utils.data import Sampler

from medjax.data.ladder import Ladder
from medjax.data.order import batches_by_rung
from medjax_torch.batches.items import ItemDataset, Position

Order = Callable[[int, int], np.ndarray]
"""Takes seed and epoch; returns the order of the items, shape (items,)."""


def medkit_order(seed: int, epoch: int, nb_items: int) -> np.ndarray:
    """Return the order of the training items in medkit's trainer with the same seed.

    medkit draws from torch's global generator, which it seeds once. In each epoch its DataLoaders
    draw three numbers: a worker seed and a sampler seed for training, and a worker seed for
    evaluation. This function repeats these draws from a separate generator, so it can start at any
    epoch. The result is medkit's order as long as nothing else draws from the global generator in
    medkit. Dropout on the CPU does, so with it the orders differ from the second epoch on.

    Parameters
    ----------
    seed : int
        The configuration's seed.
    epoch : int
        Epoch, counted from 1.
    nb_items : int
        Length of the dataset.

    Returns
    -------
    numpy.ndarray
        A permutation of 0 to `nb_items` - 1, shape (nb_items,), int64.

    Examples
    --------
    >>> medkit_order(7, 2, 6).tolist()
    [1, 4, 2, 0, 5, 3]
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(3 * (epoch - 1) + 2):
        drawn = torch.empty((), dtype=torch.int64).random_(generator=generator)
    shuffled = torch.randperm(nb_items, generator=generator.manual_seed(int(drawn)))
    return shuffled.numpy()


class Lengths:
    """Measures and remembers the lengths of preprocessed items.

    Parameters
    ----------
    dataset : ItemDataset
        The items to measure, in this process.
    fills : mapping of str to float
        The ragged columns; the length of an item is that of its longest one.
    hand_over : bool
        Whether the dataset keeps the measured examples for the loader; pointless if the loader
        uses a copy of the dataset in another process.
    """

    def __init__(self, dataset: ItemDataset, fills: Mapping[str, float], hand_over: bool) -> None:
        self._dataset = dataset
        self._ladder = Ladder((), fills)
        self._hand_over = hand_over
        self._known = np.full(len(dataset), -1, dtype=np.int32)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return the lengths of a window's items, shape (len(indices),), int32.

        If the first item has no ragged column, all lengths are 0 and no other item is measured.
        """
        self._dataset.forget()
        if self._dataset.is_random:
            # With lengths from another epoch, the order would depend on where the run started.
            self._known.fill(-1)
        if self._length(indices[0]) == 0:
            return np.zeros(len(indices), dtype=np.int32)
        return np.array([self._length(index) for index in indices], dtype=np.int32)

    def _length(self, index: int) -> int:
        if self._known[index] < 0:
            example = self._dataset.peek(int(index))
            ragged = isinstance(example, Mapping)
            self._known[index] = self._ladder.length_of(example) if ragged else 0
            if not self._hand_over:
                self._dataset.forget()
        return int(self._known[index])


class HasLengths(Protocol):
    """The lengths that batches are padded to."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, increasing."""
        ...


class EpochSampler(Sampler[int]):
    """Yields the indices of an epoch's items, for torch to cut into batches.

    Parameters
    ----------
    order : Order
        Returns the order of the items, shape (items,).
    nb_items : int
        Length of the dataset.
    position : Position
        Seed, epoch and first batch.
    batch_size : int
        Rows in a batch.
    ladder : HasLengths, optional
        The lengths that batches are padded to.

    Attributes
    ----------
    handed_out : collections.deque of int
        Indices yielded by the latest iteration, from which the caller that pairs batches with
        indices removes them.
    ladder : HasLengths or None
        The lengths that batches are padded to, if they are known.
    """

    def __init__(
        self,
        order: Order,
        nb_items: int,
        position: Position,
        batch_size: int,
        ladder: HasLengths | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.position = position
        self.handed_out: collections.deque[int] = collections.deque()
        self.ladder = ladder
        self._order = order
        self._nb_items = nb_items

    def __len__(self) -> int:
        """Return the number of items in an epoch."""
        return self._nb_items

    @property
    def epoch(self) -> int:
        """Epoch of the next iteration, counted from 1."""
        return self.position.epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self.position.epoch = epoch

    @property
    def start(self) -> int:
        """First batch of the next iteration; reset to 0 when that starts."""
        return self.position.start

    @start.setter
    def start(self, start: int) -> None:
        self.position.start = start

    def __iter__(self) -> Iterator[int]:
        """Yield the indices, starting at the position."""
        epoch, start = self.epoch, self.start
        self.start = 0
        handed_out = self.handed_out = collections.deque()
        for index in itertools.chain.from_iterable(self._batches(epoch, start)):
            handed_out.append(index)
            yield index

    def batch(self, epoch: int, number: int) -> list[int]:
        """Return the indices of one batch."""
        return next(self.batches(epoch, number, drop_last=False), [])

    def batches(self, epoch: int, start: int, *, drop_last: bool) -> Iterator[list[int]]:
        """Yield the indices of the batches of an epoch from number `start` on."""
        for batch in self._batches(epoch, start):
            if drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def _batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        order = self._order(self.position.seed, epoch)
        for first in range(start * self.batch_size, len(order), self.batch_size):
            yield order[first : first + self.batch_size].tolist()


class GroupedSampler(EpochSampler):
    """Yields an order in which items that are padded to the same length share a batch.

    The batches are those of medjax's loader: the order is cut into windows, and each window is
    grouped by length.

    Parameters
    ----------
    order, nb_items, position, batch_size, ladder
        As for `EpochSampler`.
    lengths : Lengths
        Measures the items of a window.
    window : int
        Number of batches that are grouped together.
    shuffle : bool
        Whether the batches of a window are shuffled; otherwise they are sorted from short to long.
    """

    def __init__(
        self,
        order: Order,
        nb_items: int,
        position: Position,
        batch_size: int,
        ladder: HasLengths,
        *,
        lengths: Lengths,
        window: int,
        shuffle: bool,
    ) -> None:
        super().__init__(order, nb_items, position, batch_size, ladder)
        self._ladder = ladder
        self._lengths = lengths
        self._window = window
        self._shuffle = shuffle

    def first_of_shapes(self, epoch: int, start: int) -> dict[int, list[int]]:
        """Return the first batch of each shape from number `start` to the end of its window.

        Returns
        -------
        dict of int to list of int
            The indices of each such batch, by its number in the epoch.
        """
        number, skipped = divmod(start, self._window)
        order = self._order(self.position.seed, epoch)
        indices, rungs, batches = self._grouped(order, epoch, number)
        shapes = [(len(batch), rungs[batch].max()) for batch in batches[skipped:]]
        firsts = {shape: place for place, shape in reversed([*enumerate(shapes)])}
        return {
            start + place: indices[batches[skipped + place]].tolist()
            for place in sorted(firsts.values())
        }

    def _batches(self, epoch: int, start: int) -> Iterator[list[int]]:
        order = self._order(self.position.seed, epoch)
        first, skipped = divmod(start, self._window)
        nb_windows = -(-len(order) // (self._window * self.batch_size))
        for number in range(first, nb_windows):
            indices, _, batches = self._grouped(order, epoch, number)
            for batch in batches[skipped if number == first else 0 :]:
                yield indices[batch].tolist()

    def _grouped(
        self, order: np.ndarray, epoch: int, window: int
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Return the items of a window, their padded lengths, and the batches of positions."""
        size = self._window * self.batch_size
        indices = order[window * size : (window + 1) * size]
        rungs = Ladder(self._ladder.lengths, {}).rungs(self._lengths(indices))
        batches = batches_by_rung(
            rungs,
            self.batch_size,
            seed=self.position.seed,
            epoch=epoch,
            window=window,
            shuffle=self._shuffle,
        )
        return indices, rungs, batches
