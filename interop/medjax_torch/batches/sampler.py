"""The order of the training data, in torch's form: a sampler of batches of indices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Sampler

from medjax.data import epoch_order
from medjax.data.ladder import Ladder
from medjax.data.order import batches_by_length
from medjax_torch.batches.dataset import PreprocessedDataset


def medkit_order(seed: int, epoch: int, nb_items: int) -> np.ndarray:
    """Return the order that medkit's Trainer has in an epoch, if forward draws nothing in torch.

    medkit seeds torch's generator once. From then on the start of every pass over a DataLoader
    draws one number from it, and a shuffling one a second, the seed of its permutation
    (``torch.utils.data``, 2.11 to 2.13). An epoch passes over the training data, shuffled, and
    the evaluation data.

    Parameters
    ----------
    seed : int
        ``TrainerConfig.seed``.
    epoch : int
        From 1.
    nb_items : int
        Length of the dataset.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> int:
        return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())

    for _ in range(3 * (epoch - 1) + 1):
        draw()
    permutation = torch.Generator().manual_seed(draw())
    return torch.randperm(nb_items, generator=permutation).numpy()


class EpochBatchSampler(Sampler[list[int]]):
    """Batches of indices as a function of seed and epoch.

    Parameters
    ----------
    dataset : PreprocessedDataset
        What is sampled.
    batch_size : int
        Items of a batch; the last may have fewer.
    shuffle : bool
        Whether the order changes with the epoch.
    seed : int
        Seed of the order.
    drop_last : bool
        Whether a last batch with fewer items is left out.
    order : {"uniform", "medkit"}
        See `medjax_torch.Options`.
    window : int
        Batches grouped by length together; 0 for none.
    ladder : Ladder
        Which columns have a length.

    Attributes
    ----------
    seed, epoch, start : int
        Seed, epoch from 1 and first batch of the next pass.
    """

    def __init__(
        self,
        dataset: PreprocessedDataset,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        order: Literal["uniform", "medkit"],
        window: int,
        ladder: Ladder,
    ) -> None:
        self.seed, self.epoch, self.start = seed, 1, 0
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._dataset = dataset
        self._shuffle = shuffle
        self._order = order
        self._window = window
        self._ladder = ladder

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        nb_items = len(self._dataset)
        return nb_items // self.batch_size if self.drop_last else -(-nb_items // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the batches of `epoch` from number `start` on."""
        for batch in self.batches(self.epoch, self.start):
            yield batch.tolist()

    def batches(self, epoch: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yield the indices of each batch of an epoch from number `start` on."""
        items = self._items(epoch)
        size = self.batch_size
        if not self._window:
            for number in range(start, len(self)):
                yield items[number * size : (number + 1) * size]
            return
        per_window = self._window * size
        first = start // self._window
        skipped = start - first * self._window
        for number, begin in enumerate(range(first * per_window, len(items), per_window), first):
            indices = items[begin : begin + per_window]
            for batch in self._grouped(epoch, number, indices)[skipped:]:
                if len(batch) == size or not self.drop_last:
                    yield indices[batch]
            skipped = 0

    def _items(self, epoch: int) -> np.ndarray:
        nb_items = len(self._dataset)
        if not self._shuffle:
            return np.arange(nb_items)
        if self._order == "medkit":
            return medkit_order(self.seed, epoch, nb_items)
        return epoch_order(self.seed, epoch, nb_items)

    def _grouped(self, epoch: int, window: int, indices: np.ndarray) -> list[np.ndarray]:
        return batches_by_length(
            self._dataset.lengths(indices.tolist(), self._ladder),
            self.batch_size,
            seed=self.seed,
            epoch=epoch,
            window=window,
            shuffle=self._shuffle,
        )
