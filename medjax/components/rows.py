"""Rows of a batch, padded to the longest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["padded"]


def padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    """Return rows of different lengths as one array, int32, shape (rows, longest).

    Parameters
    ----------
    rows : sequence of sequences of int
        At least one row.
    fill : int
        Value that short rows end with.

    Examples
    --------
    >>> padded([[1], [2, 3]], 0).tolist()
    [[1, 0], [2, 3]]
    """
    result = np.full((len(rows), max(map(len, rows))), fill, np.int32)
    for number, row in enumerate(rows):
        result[number, : len(row)] = row
    return result
