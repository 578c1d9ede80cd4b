"""The user's dataset with the component's `preprocess` in front, as torch's DataLoader reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset, IterableDataset

from medjax.data import ItemError, length_of
from medjax.data.ladder import Ladder


class PreprocessedDataset(Dataset[dict[str, Any]]):
    """Items of a map-style dataset, preprocessed when they are asked for.

    Parameters
    ----------
    dataset : object
        With ``__len__`` and ``__getitem__``.
    preprocess : callable
        Item to example.
    keep : bool
        Whether examples are kept in memory, so that each is preprocessed once.

    Raises
    ------
    ValueError
        If the dataset has no length or no items.
    """

    def __init__(self, dataset: Any, preprocess: Callable[[Any], Any], *, keep: bool) -> None:
        self.dataset = dataset
        self._length = length_of(dataset)
        self._preprocess = preprocess
        self._keep = keep
        self._kept: dict[int, Any] = {}
        self._lengths = np.full(0, -1, np.int32)

    def __len__(self) -> int:
        """Return the number of items."""
        return self._length

    def __getitem__(self, index: int) -> Any:
        """Return an example.

        Raises
        ------
        ItemError
            If the item cannot be read or preprocessed; it names the index.
        """
        if index in self._kept:
            return self._kept[index] if self._keep else self._kept.pop(index)
        example = self._example(index)
        if self._keep:
            self._kept[index] = example
        return example

    def lengths(self, indices: Sequence[int], ladder: Ladder) -> list[int]:
        """Return the lengths of items, preprocessing those not measured before.

        Their examples are held until they are asked for, which the sampler's caller does next.
        """
        if not len(self._lengths):
            self._lengths = np.full(len(self), -1, np.int32)
        self._kept = self._kept if self._keep else {}
        for index in indices:
            if self._lengths[index] < 0:
                example = self._kept.get(index) or self._example(index)
                self._lengths[index] = ladder.length_of(example)
                self._kept[index] = example
        return [int(self._lengths[index]) for index in indices]

    def __getstate__(self) -> dict[str, Any]:
        # A worker process gets the dataset, not what this process keeps of it.
        return {**self.__dict__, "_kept": {}, "_keep": False}

    def _example(self, index: int) -> Any:
        try:
            return self._preprocess(self.dataset[index])
        except Exception as error:
            raise ItemError(index, f"{type(error).__name__}: {error}") from error


class PreprocessedStream(IterableDataset[dict[str, Any]]):
    """Items of an `IterableDataset` with a length, preprocessed as they come.

    Parameters
    ----------
    dataset : IterableDataset
        With ``__len__``.
    preprocess : callable
        Item to example.

    Raises
    ------
    ValueError
        If the dataset has no length, or none.
    """

    def __init__(self, dataset: Any, preprocess: Callable[[Any], Any]) -> None:
        try:
            self._length = len(dataset)
        except (TypeError, NotImplementedError):
            self._length = 0
        if self._length < 1:
            msg = (
                f"the data is a {type(dataset).__name__} without a length; expected one whose "
                "__len__ says how many items it yields, at least one"
            )
            raise ValueError(msg)
        self.dataset = dataset
        self._preprocess = preprocess

    def __len__(self) -> int:
        """Return the number of items."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        """Yield the examples in the dataset's own order."""
        index = -1
        for index, item in enumerate(self.dataset):
            try:
                yield self._preprocess(item)
            except Exception as error:
                raise ItemError(index, f"{type(error).__name__}: {error}") from error
        if index + 1 != self._length:
            msg = (
                f"the {type(self.dataset).__name__} yielded {index + 1} items, and its length is "
                f"{self._length}; expected as many"
            )
            raise ValueError(msg)
