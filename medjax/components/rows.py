"""Rows of a batch: padded to the longest, and to the lengths of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.data.fitting import STANDARD_LENGTHS, lengths_beyond
from medjax.data.ladder import HUGGING_FACE_PADDING, Ladder

__all__ = ["check_finite", "padded", "prediction_ladder"]


def padded(rows: Sequence[Sequence[Any]], fill: int) -> np.ndarray:
    """Return rows of different lengths as one array, int32, shape (rows, longest, ...).

    Parameters
    ----------
    rows : sequence of sequences of int
        At least one row; entries may also be tuples of the same length.
    fill : int
        Value that short rows end with.

    Examples
    --------
    >>> padded([[1], [2, 3]], 0).tolist()
    [[1, 0], [2, 3]]
    """
    shape = (len(rows), max(map(len, rows)), *np.shape(next(filter(None, rows), [0])[0]))
    result = np.full(shape, fill, np.int32)
    for number, row in enumerate(rows):
        result[number, : len(row)] = row
    return result


def prediction_ladder(max_length: int) -> Ladder:
    """Return the lengths that new texts are padded to, of which no sample is known.

    Parameters
    ----------
    max_length : int
        Tokens of a window, which is one of the lengths.

    Examples
    --------
    >>> prediction_ladder(48).lengths[:7]
    (16, 24, 32, 40, 48, 56, 64)
    """
    shorter = [length for length in STANDARD_LENGTHS if length < max_length]
    beyond = lengths_beyond(max_length, "cpu")
    return Ladder((*shorter, max_length, *beyond), HUGGING_FACE_PADDING)


def check_finite(numbers: np.ndarray) -> None:
    """Raise ValueError unless all are finite: of NaN, the first class would be the largest."""
    if not np.isfinite(numbers).all():
        found = numbers[~np.isfinite(numbers)][0]
        msg = (
            f"the model computes {found} for a text; expected finite numbers: its weights are not "
            "finite, or too large for the precision; predict with weights of an earlier epoch, or "
            "with precision='float32'"
        )
        raise ValueError(msg)
