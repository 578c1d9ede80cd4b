"""What a loader yields, and what the loop needs of a loader."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

import numpy as np

from medjax.batch import BatchData

__all__ = ["Batch", "Batches"]


class Batch(NamedTuple):
    """A batch on its way through the loop.

    Attributes
    ----------
    device : BatchData
        Array columns and ``row_mask``, padded and laid out over the mesh.
    host : mapping
        What `collate` returned: a BatchData, or whatever mapping another source of batches makes.
    indices : numpy.ndarray
        Positions of its items in the dataset, shape (rows,), int64.
    rows : numpy.ndarray or None
        The rows of the batch that `host` holds if each process reads a part; None for all.

    Examples
    --------
    >>> host = BatchData(x=np.array([1.0, 2.0]))
    >>> Batch(device=host, host=host, indices=np.array([3, 1])).rows is None
    True
    """

    device: BatchData
    host: Any
    indices: np.ndarray
    rows: np.ndarray | None = None


class Batches(Protocol):
    """What the loop needs of a loader; `DataLoader` is one."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def batches(self, epoch: int, start: int = 0) -> Generator[Batch]:
        """Yield the batches of an epoch, beginning with number `start`."""
        ...

    def indices(self, epoch: int, batch: int) -> list[int]:
        """Return the positions in the dataset of the items of one batch."""
        ...
