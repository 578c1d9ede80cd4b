"""Operators that write at indices.

An index out of range is an error in torch. JAX cannot raise inside a compiled step and writes
nothing there; instead an element of the result becomes NaN (for integers, a limit of the dtype),
which then shows in the loss or a gradient. So it does where a mask selects more than is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.dtypes import missing, number
from medjax_torch.lowerings.indexing import Indices, as_key, is_mask, with_masks
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


def _positions(index: jax.Array, dim: int) -> tuple[jax.Array, ...]:
    """Return the coordinates `scatter` writes to: `index` along `dim`, the position elsewhere."""
    grid = jnp.indices(index.shape, sparse=True)
    return tuple(index if d == dim % index.ndim else along for d, along in enumerate(grid))


def _like(index: jax.Array, source: jax.Array) -> jax.Array:
    """Crop the source to the shape of the index."""
    return source[tuple(slice(n) for n in index.shape)]


def spoiled(x: jax.Array, broken: jax.Array) -> jax.Array:
    """Set an element of `x` to NaN (for integers, a limit of the dtype) if `broken`."""
    if not x.size or x.dtype == jnp.bool_:
        return x
    first = (0,) * x.ndim
    return x.at[first].set(jnp.where(broken, missing(x.dtype), x[first]))


def _checked(result: jax.Array, index: jax.Array, dim: int) -> jax.Array:
    """Spoil the result if any index is out of range along `dim`."""
    size = result.shape[dim] if result.ndim else 1
    return spoiled(result, jnp.any((index < 0) | (index >= size)))


@lowers(aten.scatter.src)
def _scatter(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    return _checked(x.at[_positions(index, dim)].set(_like(index, source)), index, dim)


@lowers(aten.scatter.value)
def _scatter_value(x: jax.Array, dim: int, index: jax.Array, value: Any) -> jax.Array:
    return _checked(x.at[_positions(index, dim)].set(number(value, x.dtype)), index, dim)


@lowers(aten.scatter_add.default)
def _scatter_add(x: jax.Array, dim: int, index: jax.Array, source: jax.Array) -> jax.Array:
    return _checked(x.at[_positions(index, dim)].add(_like(index, source)), index, dim)


def _neutral(reduce: str, dtype: Any) -> Any:
    """Return the neutral element of a reduction."""
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
    source = _like(index, source)
    return _checked(_reduced(x, _positions(index, dim), source, reduce, include_self), index, dim)


def _reduced(
    x: jax.Array,
    places: tuple[jax.Array, ...],
    source: jax.Array,
    reduce: str,
    include_self: bool,
) -> jax.Array:
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
    return _checked(x.at[where].add((source * alpha).astype(x.dtype)), index, dim)


def _any_outside(indices: Indices, shape: Sequence[int]) -> jax.Array:
    """Return whether any index is out of range; negative ones count from the end."""
    outside = [
        jnp.any((index < -size) | (index >= size))
        for index, size in zip(indices, shape, strict=False)
        if index is not None
    ]
    return jnp.any(jnp.stack(outside))


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
        If a mask is combined with other indices: the number of selected elements is unknown.
    """
    indices = with_masks(indices)
    used = [index for index in indices if index is not None]
    if not any(is_mask(index) for index in used):
        target = x.at[as_key(indices)]
        written = target.add(values) if accumulate else target.set(values.astype(x.dtype))
        return spoiled(written, _any_outside(indices, x.shape))
    if len(used) > 1:
        raise ValueError(
            f"An assignment to x[...] with {len(used)} indices, one of them a mask, cannot be "
            "lowered; expected only the mask. Use torch.where or mask.nonzero() instead."
        )
    leading = next(i for i, index in enumerate(indices) if index is not None)
    return _put_where(x, leading, used[0], values, accumulate)


def _put_where(
    x: jax.Array, leading: int, mask: jax.Array, values: jax.Array, accumulate: bool
) -> jax.Array:
    """Write where a mask over the dimensions from `leading` on is true."""
    trailing = x.ndim - leading - mask.ndim
    flat = x.reshape(*x.shape[:leading], mask.size, *x.shape[x.ndim - trailing :])
    axis = values.ndim - trailing - 1
    if not values.size:
        return x
    if axis >= 0 and values.shape[axis] > 1:
        rank = jnp.cumsum(mask.reshape(-1)) - 1  # true elements before each one
        values = jnp.take(values, jnp.clip(rank, 0, values.shape[axis] - 1), axis)
    written = flat + values if accumulate else jnp.broadcast_to(values, flat.shape)
    chosen = mask.reshape(-1, *(1,) * trailing)
    return jnp.where(chosen, written, flat).reshape(x.shape).astype(x.dtype)


@lowers(aten.masked_scatter.default)
def masked_scatter(
    x: jax.Array, mask: jax.Array, source: jax.Array, available: Any = None
) -> jax.Array:
    """Write the elements of `source` where the mask is true, `available` of them or all."""
    x, mask = jnp.broadcast_arrays(x, mask)
    count = jnp.cumsum(mask.reshape(-1))
    if source.size:
        rank = count.reshape(x.shape) - 1
        written = jnp.where(mask, jnp.take(source.reshape(-1), rank, mode="clip"), x)
    else:
        written = x
    if not x.size:
        return written
    return spoiled(written, count[-1] > (source.size if available is None else available))


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
