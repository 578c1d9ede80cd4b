"""Fixed shapes: ragged columns padded to a ladder of lengths, batches to a number of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.batch import ROW_MASK, BatchData

HUGGING_FACE_PADDING: Mapping[str, float] = {
    "input_ids": 0,
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "labels": -100,
}
"""Columns padded to the ladder, by the names and values Hugging Face uses."""

_INT32 = np.iinfo(np.int32)


class Ladder(NamedTuple):
    """The lengths batches are padded to, and the columns that are padded.

    Attributes
    ----------
    lengths : tuple of int
        Increasing lengths.
    fills : mapping of str to float
        Column to the value that pads it along its second axis.
    """

    lengths: tuple[int, ...]
    fills: Mapping[str, float]

    def length_of(self, example: dict[str, Any]) -> int:
        """Return the length of an example: that of its longest ragged column, 0 without one."""
        columns = [example[name] for name in self.fills if name in example]
        return max((_length(column) for column in columns), default=0)

    def rung(self, length: int, column: str, shape: Sequence[int]) -> int:
        """Return the shortest length of the ladder that holds `length`.

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
            f"{self.lengths[-1]}; truncate in preprocess, or give "
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
            Length of the longest example when this is a part of a batch, which is padded as a
            whole.

        Raises
        ------
        ValueError
            If the part needs another rung than its examples, as measured, do.
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
                f"collate made column {widest!r} {width} long of examples of at most {longest}; "
                "with several processes they agree on the padded length by the examples, so "
                "preprocess must return ragged columns in the length that collate gives them"
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
    """Return a column in the type the device uses: int64 as int32, float64 as float32.

    Raises
    ------
    ValueError
        If an integer does not fit, since wrapping it would train on other data, or if the column
        holds objects.
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
    """Return the device's part of a batch: arrays only, padded in length and in rows.

    Parameters
    ----------
    batch : BatchData
        What `collate` returned.
    ladder : Ladder
        Lengths to pad to.
    nb_rows : int
        Rows to pad to. Padding rows are copies of the first row, so that they hold values the
        model can take; ``row_mask`` gives them weight zero.
    longest : int, optional
        See `Ladder.pad_lengths`.

    Raises
    ------
    ValueError
        If the columns differ in length, do not fit the ladder or hold what a device cannot.
    """
    found = batch.nb_rows
    if not 0 < found <= nb_rows:
        msg = f"collate returned {found} rows; expected at least 1 and at most {nb_rows}"
        raise ValueError(msg)
    arrays = BatchData({name: np.asarray(column) for name, column in batch.arrays().items()})
    if ROW_MASK in batch:
        msg = f"collate returned a column {ROW_MASK!r}, a name that medjax fills in; rename it"
        raise ValueError(msg)
    padded = ladder.pad_lengths(arrays, longest)
    rows = np.where(np.arange(nb_rows) < found, np.arange(nb_rows), 0)
    # Taking rows copies, which keeps the device, where it shares the host's memory, from seeing
    # what collate writes into its arrays later.
    columns = {name: narrow(name, c)[rows] for name, c in padded.items()}
    columns[ROW_MASK] = (np.arange(nb_rows) < found).astype(np.float32)
    return BatchData(columns)
