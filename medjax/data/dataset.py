"""Datasets: what the user passes, and its expansion where an item makes more than one row."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import numpy as np

from medjax.component import ExpandedData, TrainableComponent
from medjax.data.policy import nb_items_of
from medjax.data.sampling import Sampled

__all__ = ["Dataset", "expand", "length_of", "origins_of"]

logger = logging.getLogger("medjax")


class Dataset(Protocol):
    """Anything with a length and items by index: a list, a torch Dataset, a grain source, ...

    Examples
    --------
    >>> data: Dataset = ["no fever", "mild cough"]
    >>> len(data), data[1]
    (2, 'mild cough')
    """

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""
        ...


def expand(data: Dataset, component: TrainableComponent, *, training: bool) -> Dataset:
    """Return a dataset with one item for each row of a batch; expanded data is returned as it is.

    Parameters
    ----------
    data : Dataset
        The user's dataset.
    component : TrainableComponent
        Its `expand` is called, if it has one.
    training : bool
        Whether the data is for training rather than evaluation.

    Raises
    ------
    ValueError
        If the dataset has no length or no items, if the component refuses it, or if all its rows
        come from items that are never drawn.
    """
    length_of(data)
    weights = data.weights if isinstance(data, Sampled) and training else None
    if isinstance(data, ExpandedData) or (component.expand is None and weights is None):
        return data
    expanded = ExpandedData(data, range(len(data)))  # type: ignore[arg-type]  # it is indexed only
    if component.expand is not None:
        expanded = component.expand(data, training=training)
    if jax.process_index() == 0:
        for note in expanded.notes:
            logger.warning(note)
    length_of(expanded)
    if weights is None:
        return expanded
    weights = weights[np.asarray(expanded.origins)]
    if not weights.any():
        msg = (
            f"all {len(expanded)} rows come from items of weight 0, so none can be drawn; expected "
            "a weight above 0 for an item that has rows"
        )
        raise ValueError(msg)
    return dataclasses.replace(expanded, weights=weights)


def length_of(data: Dataset) -> int:
    """Return the number of items in a dataset; raise ValueError if it has no length or no items.

    Examples
    --------
    >>> length_of(["no fever", "mild cough"])
    2
    >>> length_of([])
    Traceback (most recent call last):
    ValueError: the data, a list, has no items; expected at least one
    """
    kind = type(data).__name__
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        msg = (
            f"the data is a {kind}; expected an object with __len__ and __getitem__, such as a "
            "list or a map-style dataset. Turn a stream into a list first"
        )
        raise ValueError(msg)
    return nb_items_of(data)


def origins_of(data: Dataset, indices: Sequence[int]) -> list[int]:
    """Return the positions in the user's dataset that the items at `indices` come from.

    Examples
    --------
    >>> origins_of(ExpandedData(["no", "fever", "cough"], origins=[0, 0, 1]), [1, 2])
    [0, 1]
    """
    if isinstance(data, ExpandedData):
        return [data.origins[index] for index in indices]
    return list(indices)
