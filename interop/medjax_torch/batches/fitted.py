"""The lengths that batches are padded to, fitted to a dataset when they are first needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from torch.utils.data import DataLoader

from medjax import distributed
from medjax.data.fitting import MEASURED, STANDARD_LENGTHS, lengths_beyond
from medjax.data.order import fixed_sample
from medjax_torch.batches.items import ItemDataset
from medjax_torch.batches.order import EpochSampler, Lengths
from medjax_torch.batches.undone import undone

Fit = Callable[[Sequence[int], int], tuple[int, ...]]
"""``fit(lengths, nb_items)`` returns a ladder; see `medjax.data.fitting.fit_lengths`."""


class LoaderLadder:
    """The lengths that the batches of one dataset are padded to.

    Parameters
    ----------
    dataset : ItemDataset
        Its items, or a sample of them, are measured in this process.
    fills : mapping of str to float
        The ragged columns.
    lengths : sequence of int or callable
        The lengths, or a function that chooses them.
    """

    def __init__(
        self, dataset: ItemDataset, fills: Mapping[str, float], lengths: Sequence[int] | Fit
    ) -> None:
        self._dataset = dataset
        self._fills = fills
        self.fit = lengths if callable(lengths) else None
        self._lengths = None if callable(lengths) else tuple(lengths)

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths, increasing; the standard ones if no item has a ragged column."""
        if self._lengths is None:
            measured = self._measured()
            self._lengths = STANDARD_LENGTHS
            if measured and self.fit is not None:
                self._lengths = self.fit(measured, len(self._dataset))
        return self._lengths

    def restore(self, lengths: Sequence[int]) -> None:
        """Use the lengths of a checkpoint."""
        self._lengths = tuple(lengths)

    def _measured(self) -> list[int]:
        lengths: list[int] = []
        if jax.process_index() == 0:
            positions = fixed_sample(len(self._dataset), MEASURED)
            with undone(self._dataset):
                lengths = Lengths(self._dataset, self._fills, hand_over=False)(positions).tolist()
            if lengths[0] == 0:
                lengths = []
        measured: list[int] = json.loads(distributed.first_of(json.dumps(lengths)))
        return measured


def ladder_of_loader(loader: DataLoader[Any]) -> LoaderLadder | None:
    """Return the ladder that is fitted to a loader's dataset, None if there is none."""
    ladder = loader.sampler.ladder if isinstance(loader.sampler, EpochSampler) else None
    return ladder if isinstance(ladder, LoaderLadder) and ladder.fit is not None else None


def lengths_of_loader(loader: DataLoader[Any], platform: str) -> tuple[int, ...]:
    """Return the fitted lengths for a loader, and those that continue them.

    Parameters
    ----------
    loader : torch.utils.data.DataLoader
        A loader; for a user's own, the standard lengths are returned.
    platform : str
        The platform that continuing lengths are for.
    """
    ladder = ladder_of_loader(loader)
    lengths = STANDARD_LENGTHS if ladder is None else ladder.lengths
    return (*lengths, *lengths_beyond(lengths[-1], platform))
