"""Operators that read or write at indices.

An index out of range is an error in torch. JAX cannot raise inside a compiled step, so reading at
such an index gives NaN (of integers: a limit of the dtype), which the loss then shows; writing at
one does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.dtypes import number
from medjax_torch.lowerings.table import Kind, Traced, lowers

aten = torch.ops.aten

Indices = Sequence[jax.Array | None]


def non_negative(index: jax.Array, size: int) -> jax.Array:
    """Move negative indices beyond the end, where torch's error becomes a NaN.

    JAX would count them from the end; the operators that use this do not in torch.
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
    # The index may be shorter than x along the other dimensions: what it leaves out is not read.
    window = tuple(slice(None) if d == dim else slice(n) for d, n in enumerate(index.shape))
    index = non_negative(index, x.shape[dim])
    return jnp.take_along_axis(x[window], index, dim, mode="fill")


def _positions(index: jax.Array, dim: int) -> tuple[jax.Array, ...]:
    """Return the full coordinates that `scatter` writes: `index` along `dim`, its own elsewhere."""
    grid = jnp.indices(index.shape, sparse=True)
    return tuple(index if d == dim % index.ndim else along for d, along in enumerate(grid))


def _like(index: jax.Array, source: jax.Array) -> jax.Array:
    """Cut off the part of the source for which there is no index."""
    return source[tuple(slice(n) for n in index.shape)]


@lowers(aten.scatter.src)
def _scatter(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    return x.at[_positions(index, dim)].set(_like(index, source))


@lowers(aten.scatter.value)
def _scatter_value(x: jax.Array, dim: int, index: jax.Array, value: Any) -> jax.Array:
    return x.at[_positions(index, dim)].set(number(value, x.dtype))


@lowers(aten.scatter_add.default)
def _scatter_add(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    return x.at[_positions(index, dim)].add(_like(index, source))


def _neutral(reduce: str, dtype: Any) -> Any:
    """Return the number that changes no result of the reduction."""
    if reduce in ("amax", "amin"):
        limits = jnp.finfo(dtype) if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype)
        if jnp.issubdtype(dtype, jnp.floating):
            return -jnp.inf if reduce == "amax" else jnp.inf
        return limits.min if reduce == "amax" else limits.max
    return 1 if reduce == "prod" else 0


@lowers(aten.scatter_reduce.two)
def _scatter_reduce(
    x: jax.Array,
    dim: int,
    index: jax.Array,
    source: jax.Array,
    reduce: str,
    include_self: bool = True,
) -> jax.Array:
    places, source = _positions(index, dim), _like(index, source)
    counts = jnp.zeros(x.shape, jnp.int32).at[places].add(1)
    start = x if include_self else jnp.where(counts > 0, _neutral(reduce, x.dtype), x)
    target = start.at[places]
    if reduce in ("sum", "mean"):
        sums = target.add(source)
        divisor = jnp.maximum(counts + include_self, 1)
        if reduce == "sum":
            return sums
        floating = jnp.issubdtype(x.dtype, jnp.floating)
        return sums / divisor if floating else sums // divisor
    if reduce == "prod":
        return target.multiply(source)
    return target.max(source) if reduce == "amax" else target.min(source)


@lowers(aten.index_add.default)
def _index_add(
    x: jax.Array, dim: int, index: jax.Array, source: jax.Array, alpha: Any = 1
) -> jax.Array:
    where = (slice(None),) * (dim % max(x.ndim, 1)) + (index,)
    return x.at[where].add((source * alpha).astype(x.dtype))


def _as_key(indices: Indices) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def _is_mask(index: jax.Array | None) -> bool:
    return index is not None and index.dtype == jnp.bool_


def _selected(mask: jax.Array, count: int) -> list[jax.Array]:
    """Return the coordinates of the `count` true elements of a mask, one vector per dimension.

    A single true element stands for all, as torch broadcasts it against other indices.
    """
    found = jnp.nonzero(mask, size=count, fill_value=0)
    return [jnp.where(mask.sum() == 1, index[:1], index) for index in found]


def _block_end(indices: Indices, shape: Sequence[int], rank: int) -> int:
    """Return the last size of the block of dimensions that the indices put into the result."""
    dims = [1 if index is None or not _is_mask(index) else index.ndim for index in indices]
    kept = sum(d for index, d in zip(indices, dims, strict=True) if index is None)
    sliced = rank - sum(dims) + kept
    used = [i for i, index in enumerate(indices) if index is not None]
    # As in numpy: indices with slices between them put their block first.
    adjacent = used == list(range(used[0], used[-1] + 1))
    first = sum(index is None for index in indices[: used[0]]) if adjacent else 0
    return int(shape[first + (len(shape) - sliced) - 1])


@lowers(aten.index.Tensor, aten._unsafe_index.Tensor, kind=Kind.TRACED)
def _index(traced: Traced, x: jax.Array, indices: Indices) -> jax.Array:
    if any(_is_mask(index) for index in indices):
        count = _block_end(indices, traced.output.shape, x.ndim)
        expanded: list[jax.Array | None] = []
        for index in indices:
            if index is not None and _is_mask(index):
                expanded += _selected(index, count)
            else:
                expanded.append(index)
        indices = expanded
    return x.at[_as_key(indices)].get(mode="fill")


@lowers(aten.index_put.default, aten._unsafe_index_put.default)
def _index_put(
    x: jax.Array,
    indices: Indices,
    values: jax.Array,
    accumulate: bool = False,
) -> jax.Array:
    """Write `values` at `indices`.

    Raises
    ------
    ValueError
        If a mask stands among other indices: how many elements it selects is then unknown.
    """
    used = [index for index in indices if index is not None]
    if not any(_is_mask(index) for index in used):
        target = x.at[_as_key(indices)]
        return target.add(values) if accumulate else target.set(values.astype(x.dtype))
    if len(used) > 1:
        raise ValueError(
            f"An assignment to x[...] with {len(used)} indices, one of them a mask, cannot be "
            "lowered; expected the mask alone. Use torch.where or mask.nonzero() instead."
        )
    leading = next(i for i, index in enumerate(indices) if index is not None)
    return _put_where(x, leading, used[0], values, accumulate)


def _put_where(
    x: jax.Array, leading: int, mask: jax.Array, values: jax.Array, accumulate: bool
) -> jax.Array:
    """Write at a mask over the dimensions from `leading` on, without knowing how many are true."""
    trailing = x.ndim - leading - mask.ndim
    flat = x.reshape(*x.shape[:leading], mask.size, *x.shape[x.ndim - trailing :])
    axis = values.ndim - trailing - 1
    if axis >= 0 and values.shape[axis] > 1:
        rank = jnp.cumsum(mask.reshape(-1)) - 1  # the how-manieth true element each one is
        values = jnp.take(values, jnp.clip(rank, 0, values.shape[axis] - 1), axis)
    written = flat + values if accumulate else jnp.broadcast_to(values, flat.shape)
    chosen = mask.reshape(-1, *(1,) * trailing)
    return jnp.where(chosen, written, flat).reshape(x.shape).astype(x.dtype)


@lowers(aten.nonzero.default, kind=Kind.TRACED)
def _nonzero(traced: Traced, x: jax.Array) -> jax.Array:
    return jnp.stack(jnp.nonzero(x, size=traced.output.shape[0], fill_value=0), -1)


@lowers(aten.masked_select.default, kind=Kind.TRACED)
def _masked_select(traced: Traced, x: jax.Array, mask: jax.Array) -> jax.Array:
    x, mask = jnp.broadcast_arrays(x, mask)
    return x[jnp.nonzero(mask, size=traced.output.shape[0], fill_value=0)]


@lowers(aten.masked_scatter.default)
def _masked_scatter(x: jax.Array, mask: jax.Array, source: jax.Array) -> jax.Array:
    mask = jnp.broadcast_to(mask, x.shape)
    rank = jnp.cumsum(mask.reshape(-1)).reshape(x.shape) - 1
    return jnp.where(mask, jnp.take(source.reshape(-1), rank, mode="clip"), x)


@lowers(aten.masked_scatter_backward.default)
def _masked_scatter_backward(
    gradient: jax.Array, mask: jax.Array, size: Sequence[int]
) -> jax.Array:
    mask = jnp.broadcast_to(mask, gradient.shape).reshape(-1)
    total = 1
    for length in size:
        total *= length
    places = jnp.where(mask, jnp.cumsum(mask) - 1, total)
    return jnp.zeros(total, gradient.dtype).at[places].set(gradient.reshape(-1)).reshape(size)
