"""Operators that sort along a dimension; as in torch, NaN is the largest value."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings.reductions import only, picked
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


@lowers(aten.sort.default)
def _sort(x: jax.Array, dim: int = -1, descending: bool = False) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return only(x)
    order = jnp.argsort(x, axis=dim, descending=descending, stable=True)
    return jnp.take_along_axis(x, order, dim), order


@lowers(aten.sort.stable)
def _stable_sort(
    x: jax.Array, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[jax.Array, jax.Array]:
    return _sort(x, dim, descending)


@lowers(aten.topk.default)
def _topk(
    x: jax.Array, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return only(x)
    if not largest:
        values, order = _sort(x, dim)
        first = jnp.arange(k)
        return jnp.take(values, first, dim), jnp.take(order, first, dim)
    x = jnp.moveaxis(x, dim, -1)
    if jnp.issubdtype(x.dtype, jnp.inexact):
        # XLA ranks a NaN with a sign bit, which arithmetic on x86 yields, below all numbers.
        x = jnp.where(jnp.isnan(x), jnp.nan, x)
    values, order = lax.top_k(x, k)
    return jnp.moveaxis(values, -1, dim), jnp.moveaxis(order, -1, dim)


@lowers(aten.kthvalue.default)
def _kthvalue(
    x: jax.Array, k: int, dim: int = -1, keepdim: bool = False
) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return only(x)
    return picked(x, jnp.take(_sort(x, dim)[1], jnp.array([k - 1]), dim), dim, keepdim)


@lowers(aten.median.dim)
def _median(x: jax.Array, dim: int, keepdim: bool = False) -> tuple[jax.Array, jax.Array]:
    """Return the lower median, or the first NaN if there is one."""
    if x.ndim == 0:
        return only(x)
    middle = jnp.take(_sort(x, dim)[1], jnp.array([(x.shape[dim] - 1) // 2]), dim)
    missing = jnp.isnan(x)
    first = jnp.argmax(missing, dim, keepdims=True)
    index = jnp.where(missing.any(dim, keepdims=True), first, middle)
    return picked(x, index, dim, keepdim)


@lowers(aten.median.default)
def _median_all(x: jax.Array) -> jax.Array:
    return _median(x.reshape(-1), 0)[0]


@lowers(aten.searchsorted.Tensor)
def _searchsorted(
    boundaries: jax.Array,
    values: jax.Array,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: jax.Array | None = None,
) -> jax.Array:
    if sorter is not None:
        boundaries = jnp.take_along_axis(boundaries, sorter, -1)
    side = side or ("right" if right else "left")
    if boundaries.ndim == 1:
        return jnp.searchsorted(boundaries, values, side)
    rows = boundaries.reshape(-1, boundaries.shape[-1])
    places = jax.vmap(lambda row, wanted: jnp.searchsorted(row, wanted, side))(
        rows, values.reshape(rows.shape[0], -1)
    )
    return places.reshape(values.shape)


@lowers(aten.bucketize.Tensor)
def _bucketize(
    values: jax.Array, boundaries: jax.Array, out_int32: bool = False, right: bool = False
) -> jax.Array:
    return jnp.searchsorted(boundaries, values, "right" if right else "left")
