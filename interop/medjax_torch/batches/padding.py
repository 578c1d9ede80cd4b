"""Ragged axes of a collated torch batch, padded to few sizes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medjax.data.ladder import HUGGING_FACE_PADDING
from medjax_torch.batches.mapping import rebuilt

Slot = tuple[str, int]
"""A column and one of its axes."""

ROWS = tuple(2**power for power in range(5, 31))
"""The ladder of first axes: coarse, as each size costs a compilation and few rows cost little."""


def padding_rules(padding: Mapping[str, float | None]) -> dict[str, float]:
    """Return column to fill: the Hugging Face columns with the user's added, changed or dropped.

    Examples
    --------
    >>> padding_rules({"labels": None, "tag_ids": -1})["tag_ids"]
    -1
    """
    merged = {**HUGGING_FACE_PADDING, **padding}
    return {name: fill for name, fill in merged.items() if fill is not None}


class Ragged(NamedTuple):
    """A size in which batches differ, and the axes that have it.

    Attributes
    ----------
    slots : tuple of (str, int)
        Columns with one of their axes each. The first one tells the size.
    fills : mapping of str to float or None
        Column to the value that pads it; None repeats its last entry.
    ladder : tuple of int
        Increasing sizes to pad to.

    Examples
    --------
    >>> ragged = Ragged((("ids", 1),), {"ids": 0}, (4, 8))
    >>> ragged.size({"ids": torch.ones(2, 5)}), ragged.rung(5)
    (5, 8)
    """

    slots: tuple[Slot, ...]
    fills: Mapping[str, float | None]
    ladder: tuple[int, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(dict.fromkeys(name for name, _ in self.slots))

    def size(self, batch: Mapping[str, Any]) -> int:
        """Return the size in a batch that has the first slot."""
        name, axis = self.slots[0]
        size: int = batch[name].shape[axis]
        return size

    def agrees(self, batch: Mapping[str, Any]) -> bool:
        """Tell whether all axes are of one size in a batch that has them."""
        return len({batch[name].shape[axis] for name, axis in self.slots}) == 1

    def rung(self, size: int) -> int:
        """Return the size to pad to: `size` itself beyond the ladder, or if there is nothing."""
        return next((rung for rung in self.ladder if rung >= size > 0), size)


def resized(batch: Mapping[str, Any], sizes: Iterable[tuple[Ragged, int]]) -> Any:
    """Return the batch with ragged axes padded or cut to given sizes.

    Parameters
    ----------
    batch : mapping
        Has the columns; it is left as it is.
    sizes : iterable of (Ragged, int)
        What to change; the batch itself is returned if it has these sizes.

    Raises
    ------
    TypeError
        If the batch is of a type that cannot be rebuilt.
    ValueError
        If a column cannot hold the value that pads it.
    """
    changed: dict[str, Tensor] = {}
    for ragged, size in sizes:
        if ragged.size(batch) == size:
            continue
        for name, axis in ragged.slots:
            column = changed.get(name, batch[name])
            changed[name] = _resized(name, column, axis, size, ragged.fills[name])
    return rebuilt(batch, {**batch, **changed}) if changed else batch


def _resized(name: str, column: Tensor, axis: int, size: int, fill: float | None) -> Tensor:
    extra = size - column.shape[axis]
    if extra <= 0:
        return column.narrow(axis, 0, size)
    if fill is None:
        last = column.narrow(axis, column.shape[axis] - 1, 1)
        shape = (*column.shape[:axis], extra, *column.shape[axis + 1 :])
        return torch.cat([column, last.expand(shape)], axis)
    if not holds(column.dtype, fill):
        msg = (
            f"column {name!r} is of {column.dtype}, which cannot hold {fill}, the value that pads "
            "it; give Options(padding={column: fill}) with another value, or None to leave it"
        )
        raise ValueError(msg)
    widths = [0, 0] * (column.ndim - 1 - axis) + [0, extra]
    return torch.nn.functional.pad(column, widths, value=fill)


@functools.cache
def holds(dtype: torch.dtype, fill: float) -> bool:
    """Tell whether a column of `dtype` can hold a value without changing it."""
    if dtype.is_floating_point or dtype.is_complex:
        return True
    return torch.tensor(fill, dtype=torch.float64).to(dtype).item() == fill
