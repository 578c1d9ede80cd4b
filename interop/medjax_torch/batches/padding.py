"""Ragged columns of a collated torch batch, padded to a ladder of lengths."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medjax.data.ladder import HUGGING_FACE_PADDING
from medjax_torch.batches.mapping import rebuilt

LABELS = "labels"
"""The ragged column that other tasks use for something else, such as one entry for each class."""


def padding_rules(padding: Mapping[str, float | None]) -> dict[str, float]:
    """Return column to fill: the Hugging Face columns with the user's added, changed or dropped.

    Examples
    --------
    >>> padding_rules({"labels": None, "tag_ids": -1})["tag_ids"]
    -1
    """
    merged = {**HUGGING_FACE_PADDING, **padding}
    return {name: fill for name, fill in merged.items() if fill is not None}


class Padded(NamedTuple):
    """A batch and what was done to its length.

    Attributes
    ----------
    batch : mapping
        The batch itself if nothing was padded, otherwise a new one of the same type.
    length : int
        Size of the second axis of the ragged columns before padding; 0 without such columns.
    padded_length : int
        Their size now.
    columns : tuple of str
        Names of the ragged columns.
    beyond_ladder : bool
        Whether the batch is longer than the ladder and was left as it is for that reason.
    """

    batch: Mapping[str, Any]
    length: int
    padded_length: int
    columns: tuple[str, ...]
    beyond_ladder: bool = False


class Padder:
    """Pads the ragged columns of batches.

    Ragged are the columns with a rule that are tensors of two or more axes and of the same size
    along the second one. The first column of the rules that the batch has sets that size, but not
    ``labels``: these are padded where they agree with another column and hold integers. Give
    ``padding={"labels": None}`` where labels of another meaning may agree by chance.

    Parameters
    ----------
    fills : mapping of str to float
        Column to the value that pads it; see `padding_rules`.
    lengths : sequence of int
        The ladder: increasing lengths to pad to.

    Examples
    --------
    >>> padder = Padder(padding_rules({}), (4, 8))
    >>> padder.pad({"input_ids": torch.ones(2, 5)}).batch["input_ids"].shape
    torch.Size([2, 8])
    """

    def __init__(self, fills: Mapping[str, float], lengths: Sequence[int]) -> None:
        self._fills = dict(fills)
        self._lengths = tuple(lengths)

    def length(self, batch: Mapping[str, Any]) -> int:
        """Return the length of the ragged columns, 0 without one."""
        return self._ragged(batch)[1]

    def pad(self, batch: Mapping[str, Any]) -> Padded:
        """Return the batch padded to the next length of the ladder, if there is one.

        Raises
        ------
        TypeError
            If the batch is of a type that cannot be rebuilt.
        ValueError
            If a column cannot hold the value that pads it.
        """
        columns, length = self._ragged(batch)
        rungs = [rung for rung in self._lengths if rung >= length]
        if not columns or not rungs:
            return Padded(batch, length, length, tuple(columns), bool(columns))
        return self.pad_to(batch, min(rungs))

    def pad_to(self, batch: Mapping[str, Any], padded_length: int) -> Padded:
        """Return the batch padded to a given length, on the ladder or not.

        Raises
        ------
        TypeError
            If the batch is of a type that cannot be rebuilt.
        ValueError
            If the batch is longer, or a column cannot hold the value that pads it.
        """
        columns, length = self._ragged(batch)
        if length > padded_length:
            msg = f"the batch has columns of length {length}; expected at most {padded_length}"
            raise ValueError(msg)
        if not columns or length == padded_length:
            return Padded(batch, length, length, tuple(columns))
        extra = padded_length - length
        padded = {name: _pad(name, c, extra, self._fills[name]) for name, c in columns.items()}
        return Padded(rebuilt(batch, {**batch, **padded}), length, padded_length, tuple(columns))

    def _ragged(self, batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], int]:
        """Return the ragged columns and their common length, 0 without one."""
        candidates = {
            name: batch[name]
            for name in self._fills
            if name in batch and isinstance(batch[name], Tensor) and batch[name].ndim >= 2
        }
        length = next((c.shape[1] for name, c in candidates.items() if name != LABELS), 0)
        ragged = {
            name: column
            for name, column in candidates.items()
            if column.shape[1] == length and not (name == LABELS and column.is_floating_point())
        }
        return (ragged, length) if length else ({}, 0)


def _pad(name: str, column: Tensor, extra: int, fill: float) -> Tensor:
    if not _holds(column.dtype, fill):
        msg = (
            f"column {name!r} is of {column.dtype}, which cannot hold {fill}, the value that pads "
            "it; give Options(padding={column: fill}) with another value, or None to leave it"
        )
        raise ValueError(msg)
    widths = [0, 0] * (column.ndim - 2) + [0, extra]
    return torch.nn.functional.pad(column, widths, value=fill)


@functools.cache
def _holds(dtype: torch.dtype, fill: float) -> bool:
    if dtype.is_floating_point or dtype.is_complex:
        return True
    return torch.tensor(fill, dtype=torch.float64).to(dtype).item() == fill
