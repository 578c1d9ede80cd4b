"""Fixed shapes: ragged columns are padded to a ladder of lengths, batches to a number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.batch import ROW_MASK, BatchData

__all__ = ["HUGGING_FACE_PADDING", "Ladder", "fix_shape", "narrow"]

HUGGING_FACE_PADDING: Mapping[str, float] = {
    "input_ids": 0,
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "labels": -100,
}
"""Columns that are padded to the ladder, and the values that pad them, as in Hugging Face."""

_INT32 = np.iinfo(np.int32)


class Ladder(NamedTuple):
    """The lengths that batches are padded to, and the columns that are padded.

    Attributes
    ----------
    lengths : tuple of int
        Increasing lengths.
    fills : mapping of str to float
        Maps the name of a column to the value that pads it along its second axis.
    expected : int
        The longest length that the data was expected to need; 0 if all lengths are.

    Examples
    --------
    >>> ladder = Ladder((8, 16), {"input_ids": 0})
    >>> ladder.pad_lengths(BatchData(input_ids=np.ones((2, 11), np.int32)))["input_ids"].shape
    (2, 16)
    """

    lengths: tuple[int, ...]
    fills: Mapping[str, float]
    expected: int = 0

    def length_of(self, example: dict[str, Any]) -> int:
        """Return the length of the longest ragged column of an example, or 0 if it has none."""
        columns = [example[name] for name in self.fills if name in example]
        return max((_length(column) for column in columns), default=0)

    def rungs(self, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the rung of each length; a length beyond the ladder stays as it is.

        Examples
        --------
        >>> Ladder((8, 16), {}).rungs([3, 16, 20]).tolist()
        [8, 16, 20]
        """
        sizes = np.asarray(lengths, np.int64)
        above = np.searchsorted(self.lengths, sizes)
        inside = np.minimum(above, len(self.lengths) - 1)
        return np.where(above == inside, np.asarray(self.lengths)[inside], sizes)

    def rung(self, length: int, column: str, shape: Sequence[int]) -> int:
        """Return the smallest length in the ladder that is at least `length`.

        Raises
        ------
        ValueError
            If the ladder is too short; the message names the column and its shape.
        """
        for rung in self.lengths:
            if rung >= length:
                return rung
        msg = (
            f"column {column!r} has shape {tuple(shape)}, but the length ladder ends at "
            f"{self.lengths[-1]}; truncate in preprocess, or set "
            "Options(length_ladder=...) with a longer last length"
        )
        raise ValueError(msg)

    def pad_lengths(self, batch: BatchData, longest: int | None = None) -> BatchData:
        """Return the batch with its ragged columns padded to one common rung.

        Parameters
        ----------
        batch : BatchData
            Arrays.
        longest : int, optional
            Length of the longest example of the complete batch, if `batch` is a part of it.

        Raises
        ------
        ValueError
            If the arrays need a different rung than `longest`.
        """
        ragged = {
            name: column
            for name, column in batch.items()
            if name in self.fills and isinstance(column, np.ndarray) and column.ndim > 1
        }
        if not ragged:
            return batch
        widest = max(ragged, key=lambda name: ragged[name].shape[1])
        width = ragged[widest].shape[1]
        rung = self.rung(max(width, longest or 0), widest, ragged[widest].shape)
        if longest is not None and rung != self.rung(longest, widest, ragged[widest].shape):
            msg = (
                f"collate returned column {widest!r} with length {width}, but the examples have at "
                f"most {longest}; several processes agree on the padded length by the lengths of "
                "their examples, so preprocess must return ragged columns at their final length"
            )
            raise ValueError(msg)
        return BatchData(
            {**batch, **{n: _pad_axis(c, 1, rung, self.fills[n]) for n, c in ragged.items()}}
        )


def _length(column: Any) -> int:
    if isinstance(column, list | tuple):
        return len(column)  # its items may be ragged
    return len(column) if getattr(column, "ndim", 0) > 0 else 0


def _pad_axis(column: np.ndarray, axis: int, size: int, fill: float) -> np.ndarray:
    widths = [(0, 0)] * column.ndim
    widths[axis] = (0, size - column.shape[axis])
    return np.pad(column, widths, constant_values=fill)


def narrow(name: str, column: np.ndarray) -> np.ndarray:
    """Convert a column to the dtype the device uses: int64 to int32, float64 to float32.

    Raises
    ------
    ValueError
        If an integer does not fit, since a wrapped one would silently change the data, or if the
        column holds objects.

    Examples
    --------
    >>> narrow("labels", np.array([1, 2], np.int64)).dtype
    dtype('int32')
    """
    if column.dtype == np.float64:
        return column.astype(np.float32)
    if column.dtype in (np.int64, np.uint64, np.uint32):
        if column.size and (column.max() > _INT32.max or column.min() < _INT32.min):
            outside = column.max() if column.max() > _INT32.max else column.min()
            msg = (
                f"column {name!r} holds {outside} as {column.dtype}, which does not fit the "
                "32-bit integers of the device; renumber it, or return it as a list to keep it "
                "on the host"
            )
            raise ValueError(msg)
        return column.astype(np.int32)
    if column.dtype.kind not in "biufc" and column.dtype.name != "bfloat16":
        msg = (
            f"column {name!r} is an array of {column.dtype}; expected numbers, or a list to keep "
            "it on the host"
        )
        raise ValueError(msg)
    return column


def fix_shape(
    batch: BatchData, ladder: Ladder, nb_rows: int, longest: int | None = None
) -> BatchData:
    """Return the part of a batch that goes to the device: arrays, padded in length and in rows.

    Parameters
    ----------
    batch : BatchData
        What `collate` returned.
    ladder : Ladder
        Lengths to pad to.
    nb_rows : int
        Number of rows to pad to. Padding rows are copies of the first row, so their values are
        valid for the model; ``row_mask`` gives them weight zero.
    longest : int, optional
        See `Ladder.pad_lengths`.

    Raises
    ------
    ValueError
        If the columns differ in length, do not fit the ladder, or hold values that cannot be on a
        device.

    Examples
    --------
    >>> batch = BatchData(input_ids=np.array([[5, 6, 7]]), text=["no fever"])
    >>> fixed = fix_shape(batch, Ladder((4, 8), {"input_ids": 0}), nb_rows=2)
    >>> fixed["input_ids"].tolist(), fixed["row_mask"].tolist()
    ([[5, 6, 7, 0], [5, 6, 7, 0]], [1.0, 0.0])
    """
    nb_real = batch.nb_rows
    if not 0 < nb_real <= nb_rows:
        msg = f"collate returned {nb_real} rows; expected at least 1 and at most {nb_rows}"
        raise ValueError(msg)
    arrays = BatchData({name: np.asarray(column) for name, column in batch.arrays().items()})
    if ROW_MASK in batch:
        msg = f"collate returned a column {ROW_MASK!r}, which medjax adds itself; rename it"
        raise ValueError(msg)
    padded = ladder.pad_lengths(arrays, longest)
    rows = np.where(np.arange(nb_rows) < nb_real, np.arange(nb_rows), 0)
    # Indexing copies. A device that shares the host's memory would otherwise see what collate
    # writes to its arrays later.
    columns = {name: narrow(name, c)[rows] for name, c in padded.items()}
    columns[ROW_MASK] = (np.arange(nb_rows) < nb_real).astype(np.float32)
    return BatchData(columns)
