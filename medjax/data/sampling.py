"""Sampling: a dataset of which some items are drawn more often than others."""

from __future__ import annotations

import collections
from collections.abc import Hashable, Sequence
from typing import Any, Self

import numpy as np

__all__ = ["Sampled"]


class Sampled(Sequence[Any]):
    """A dataset whose items are drawn with replacement, by weights, in each training epoch.

    An epoch has as many items as the dataset. Which ones depends on the seed and the epoch alone,
    so runs resume as ever; in evaluation each item is read once. Where an item becomes several
    rows, such as windows, each row has its weight.

    Parameters
    ----------
    data : Dataset
        The items.
    weights : sequence of float
        Weight of each item, at least 0; an item is drawn with a probability in proportion to it.

    Raises
    ------
    ValueError
        If there is not one weight for each item, one is negative or not finite, or all are 0.

    Examples
    --------
    >>> Sampled(["no fever", "mild cough"], [1.0, 3.0]).weights.tolist()
    [0.25, 0.75]
    """

    def __init__(self, data: Any, weights: Sequence[float] | np.ndarray) -> None:
        values = np.asarray(weights, np.float64)
        if values.shape != (len(data),):
            msg = f"weights have shape {values.shape}; expected ({len(data)},), one for each item"
            raise ValueError(msg)
        if not np.isfinite(values).all() or (values < 0).any() or not values.any():
            bad = values[~np.isfinite(values) | (values < 0)]
            found = f"a weight of {bad[0]}" if len(bad) else "weights that are all 0"
            raise ValueError(f"found {found}; expected finite numbers of at least 0, some above 0")
        self._data = data
        self.weights = values / values.sum()

    @classmethod
    def balanced(cls, data: Any, classes: Sequence[Hashable]) -> Self:
        """Return a dataset of which every class is drawn equally often.

        Parameters
        ----------
        data : Dataset
            The items.
        classes : sequence of hashable
            Class of each item.

        Examples
        --------
        >>> Sampled.balanced(["a", "b", "c"], ["yes", "no", "no"]).weights.tolist()
        [0.5, 0.25, 0.25]
        """
        counts = collections.Counter(classes)
        return cls(data, [1 / counts[each] for each in classes])

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._data)

    def __getitem__(self, index: Any, /) -> Any:
        """Return an item."""
        return self._data[index]
