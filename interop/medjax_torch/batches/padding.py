"""Padding the ragged axes of a collated torch batch to few sizes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medjax.data.ladder import HUGGING_FACE_PADDING
from medjax_torch.batches.mapping import rebuilt
from medjax_torch.graph.longest_row import sizes_before

ColumnAxis = tuple[str, int]
"""A column and one of its axes."""

ROWS = tuple(2**power for power in range(5, 31))
"""Sizes of first axes: coarse, as each size costs a compilation and extra rows cost little."""


def padding_rules(padding: Mapping[str, float | None]) -> dict[str, float]:
    """Return the fill of each column: the Hugging Face defaults, overridden by the user's.

    Parameters
    ----------
    padding : mapping of str to float or None
        `Options.padding`; None removes a column.

    Examples
    --------
    >>> padding_rules({"labels": None, "tag_ids": -1})["tag_ids"]
    -1
    """
    merged = {**HUGGING_FACE_PADDING, **padding}
    return {name: fill for name, fill in merged.items() if fill is not None}


class Ragged(NamedTuple):
    """Axes that share a size which varies between batches.

    Attributes
    ----------
    column_axes : tuple of (str, int)
        Pairs of a column and one of its axes. The size is read from the first one.
    fills : mapping of str to float or None
        The padding value of each column; None repeats its last entry.
    ladder : tuple of int
        Sizes to pad to, increasing.

    Examples
    --------
    >>> ragged = Ragged((("ids", 1),), {"ids": 0}, (4, 8))
    >>> ragged.size({"ids": torch.ones(2, 5)}), ragged.rung(5)
    (5, 8)
    """

    column_axes: tuple[ColumnAxis, ...]
    fills: Mapping[str, float | None]
    ladder: tuple[int, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns, without duplicates."""
        return tuple(dict.fromkeys(name for name, _ in self.column_axes))

    def size(self, batch: Mapping[str, Any]) -> int:
        """Return the size in a batch, read from the first slot."""
        name, axis = self.column_axes[0]
        size: int = batch[name].shape[axis]
        return size

    def agrees(self, batch: Mapping[str, Any]) -> bool:
        """Return whether all axes have the same size in a batch."""
        return len({batch[name].shape[axis] for name, axis in self.column_axes}) == 1

    def rung(self, size: int) -> int:
        """Return the size to pad to; `size` itself if it is 0 or beyond the ladder."""
        return next((rung for rung in self.ladder if rung >= size > 0), size)


def resized(batch: Mapping[str, Any], sizes: Iterable[tuple[Ragged, int]]) -> Any:
    """Pad or cut ragged axes of a batch to the specified sizes.

    Parameters
    ----------
    batch : mapping
        A batch with all the columns concerned. It is not changed.
    sizes : iterable of (Ragged, int)
        Ragged axes and their new sizes. If the batch already has these sizes, it is returned
        itself.

    Raises
    ------
    TypeError
        If the type of the batch cannot be rebuilt.
    ValueError
        If the dtype of a column cannot represent its padding value.
    """
    changed: dict[str, Tensor] = {}
    for ragged, size in sizes:
        if ragged.size(batch) == size:
            continue
        for name, axis in ragged.column_axes:
            column = changed.get(name, batch[name])
            changed[name] = _resized(name, column, axis, size, ragged.fills[name])
    return rebuilt(batch, {**batch, **changed}) if changed else batch


def resized_with_sizes(batch: Mapping[str, Any], sizes: Iterable[tuple[Ragged, int]]) -> Any:
    """Return a resized batch with columns for the sizes before; see `graph.longest_row`."""
    sizes = list(sizes)
    changed = resized(batch, sizes)
    before = sizes_before((ragged.size(batch), size) for ragged, size in sizes)
    return rebuilt(batch, {**changed, **before}) if changed is not batch else batch


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
            f"column {name!r} has dtype {column.dtype}, which cannot hold its padding value "
            f"{fill}; set another value with Options(padding={{column: fill}}), or None to leave "
            "the column unpadded"
        )
        raise ValueError(msg)
    widths = [0, 0] * (column.ndim - 1 - axis) + [0, extra]
    return torch.nn.functional.pad(column, widths, value=fill)


@functools.cache
def holds(dtype: torch.dtype, fill: float) -> bool:
    """Return whether `dtype` can represent a value exactly."""
    if dtype.is_floating_point or dtype.is_complex:
        return True
    return torch.tensor(fill, dtype=torch.float64).to(dtype).item() == fill
