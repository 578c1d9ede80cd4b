"""Operators that read at indices.

An index out of range is an error in torch. JAX cannot raise inside a compiled step, so reading at
such an index gives NaN (for integers, a limit of the dtype), which then shows in the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.table import Kind, Traced, lowers

aten = torch.ops.aten

Indices = Sequence[jax.Array | None]
"""One index per dimension, None to select all of it; a mask spans several dimensions."""


def non_negative(index: jax.Array, size: int) -> jax.Array:
    """Move negative indices past the end, so that they read NaN where torch raises an error.

    JAX would count them from the end; in torch, the operators concerned do not.
    """
    return jnp.where(index < 0, size, index)


def take(x: jax.Array, index: jax.Array, dim: int) -> jax.Array:
    """Return the slices of `x` along `dim` at the integers in `index`; NaN where out of range."""
    return jnp.take(x, non_negative(index, x.shape[dim]), axis=dim, mode="fill")


@lowers(aten.index_select.default)
def _index_select(x: jax.Array, dim: int, index: jax.Array) -> jax.Array:
    return take(x, index.reshape(-1), dim) if x.ndim else x


@lowers(aten.gather.default)
def _gather(x: jax.Array, dim: int, index: jax.Array, sparse_grad: bool = False) -> jax.Array:
    if x.ndim == 0:
        return jnp.broadcast_to(x, index.shape)
    dim %= x.ndim
    # The index may be shorter than x along the other dimensions; the rest of x is not read.
    window = tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(index.shape))
    index = non_negative(index, x.shape[dim])
    return jnp.take_along_axis(x[window], index, dim, mode="fill")


def as_key(indices: Indices) -> tuple[Any, ...]:
    """Convert indices to JAX's form, with a full slice for None."""
    return tuple(slice(None) if index is None else index for index in indices)


def is_mask(index: jax.Array | None) -> bool:
    """Return whether an index is a boolean mask."""
    return index is not None and index.dtype == jnp.bool_


def with_masks(indices: Indices) -> list[jax.Array | None]:
    """Convert indices of dtype uint8, which are masks in torch, to bool."""
    return [
        index != 0 if index is not None and index.dtype == jnp.uint8 else index for index in indices
    ]


def _selected(mask: jax.Array, count: int) -> list[jax.Array]:
    """Return the coordinates of the `count` true elements of a mask, one vector per dimension.

    A single true element is repeated, as torch broadcasts it against other indices.
    """
    coordinates = jnp.nonzero(mask, size=count, fill_value=0)
    return [jnp.where(mask.sum() == 1, index[:1], index) for index in coordinates]


def _block_end(indices: Indices, shape: Sequence[int], rank: int) -> int:
    """Return the size of the last of the result's dimensions that come from the indices."""
    dims = [1 if index is None or not is_mask(index) else index.ndim for index in indices]
    kept = sum(d for index, d in zip(indices, dims, strict=True) if index is None)
    sliced = rank - sum(dims) + kept
    used = [i for i, index in enumerate(indices) if index is not None]
    # As in numpy, indices with slices between them put their dimensions first.
    adjacent = used == list(range(used[0], used[-1] + 1))
    first = sum(index is None for index in indices[: used[0]]) if adjacent else 0
    return int(shape[first + (len(shape) - sliced) - 1])


@lowers(aten.index.Tensor, aten._unsafe_index.Tensor, kind=Kind.TRACED)
def _index(traced: Traced, x: jax.Array, indices: Indices) -> jax.Array:
    indices = with_masks(indices)
    if any(is_mask(index) for index in indices):
        count = _block_end(indices, traced.output.shape, x.ndim)
        expanded: list[jax.Array | None] = []
        for index in indices:
            if index is not None and is_mask(index):
                expanded += _selected(index, count)
            else:
                expanded.append(index)
        indices = expanded
    return x.at[as_key(indices)].get(mode="fill")


@lowers(aten.nonzero.default, kind=Kind.TRACED)
def _nonzero(traced: Traced, x: jax.Array) -> jax.Array:
    return jnp.stack(jnp.nonzero(x, size=traced.output.shape[0], fill_value=0), -1)


@lowers(aten.masked_select.default, kind=Kind.TRACED)
def _masked_select(traced: Traced, x: jax.Array, mask: jax.Array) -> jax.Array:
    x, mask = jnp.broadcast_arrays(x, mask)
    return x[jnp.nonzero(mask, size=traced.output.shape[0], fill_value=0)]
