"""Datasets: what the user gives, and what is made of it where an item is more than one row."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import jax

from medjax.component import ExpandedData, TrainableComponent

LOGGER = logging.getLogger("medjax")


class Dataset(Protocol):
    """Anything with a length and items by index: a list, a torch Dataset, a grain source, ..."""

    def __len__(self) -> int:
        """Return the number of items."""
        ...

    def __getitem__(self, index: int, /) -> Any:
        """Return an item."""
        ...


def expand(data: Dataset, component: TrainableComponent, *, training: bool) -> Dataset:
    """Return a dataset with an item for each row of a batch; expanded once, it stays as it is.

    Parameters
    ----------
    data : Dataset
        The user's dataset.
    component : TrainableComponent
        Its `expand` is used, if there is one.
    training : bool
        Whether the data is trained on, and not evaluated on.

    Raises
    ------
    ValueError
        If the dataset has no length or no items, or as the component does.
    """
    length_of(data)
    if component.expand is None or isinstance(data, ExpandedData):
        return data
    expanded = component.expand(data, training=training)
    if jax.process_index() == 0:
        for note in expanded.notes:
            LOGGER.warning(note)
    length_of(expanded)
    return expanded


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


def origins_of(data: Dataset, indices: Sequence[int]) -> list[int]:
    """Return the positions in the user's dataset that some items come from."""
    if isinstance(data, ExpandedData):
        return [data.origins[index] for index in indices]
    return list(indices)
