"""Operators that reduce dimensions, and cumulative reductions along one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax.target import target_platform
from medjax_torch.lowerings.dtypes import integral, maybe_dtype
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten
prims = torch.ops.prims

Dims = int | Sequence[int] | None


def _axes(dims: Dims) -> int | tuple[int, ...] | None:
    """Convert torch's dims to numpy's axis; None and an empty list mean all dimensions."""
    if dims is None or isinstance(dims, int):
        return dims
    return tuple(dims) or None


def _counting(x: jax.Array, dtype: torch.dtype | None) -> jax.Array:
    """Cast `x` to the dtype in which it is summed: `dtype`, or for integers the widest one."""
    if dtype is not None:
        return x.astype(maybe_dtype(dtype))
    return x.astype(maybe_dtype(torch.int64)) if integral(x) else x


@lowers(aten.sum.dim_IntList)
def _sum(
    x: jax.Array, dims: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> jax.Array:
    x, axes = _counting(x, dtype), _axes(dims)
    if target_platform() == "cpu" and x.size >= _LARGE and _are_leading(axes, x.ndim):
        # A program for the CPU would compute the terms again, such as the gradients of an
        # activation for those of a bias, and more slowly than where they are stored in any case.
        x = lax.optimization_barrier(x)
    return jnp.sum(x, axes, keepdims=keepdim)


_LARGE = 2**16


def _are_leading(axes: int | tuple[int, ...] | None, ndim: int) -> bool:
    """Return whether all axes but the last are summed, as for the gradient of a bias."""
    if not isinstance(axes, tuple):
        return False
    return {axis % ndim for axis in axes} == set(range(ndim - 1))


@lowers(aten.sum.default)
def _sum_all(x: jax.Array, dtype: torch.dtype | None = None) -> jax.Array:
    return jnp.sum(_counting(x, dtype))


@lowers(prims.sum.default)
def _prims_sum(
    x: jax.Array, dims: Sequence[int] | None, output_dtype: torch.dtype | None = None
) -> jax.Array:
    return jnp.sum(_counting(x, output_dtype), None if dims is None else tuple(dims))


@lowers(aten.mean.dim)
def _mean(
    x: jax.Array, dims: Dims = None, keepdim: bool = False, dtype: torch.dtype | None = None
) -> jax.Array:
    return jnp.mean(x, _axes(dims), dtype=maybe_dtype(dtype), keepdims=keepdim)


@lowers(aten.mean.default)
def _mean_all(x: jax.Array, dtype: torch.dtype | None = None) -> jax.Array:
    return jnp.mean(x, dtype=maybe_dtype(dtype))


@lowers(aten.var.correction)
def _var(
    x: jax.Array, dims: Dims = None, correction: int | None = None, keepdim: bool = False
) -> jax.Array:
    return jnp.var(x, _axes(dims), ddof=1 if correction is None else correction, keepdims=keepdim)


@lowers(prims.var.default)
def _prims_var(
    x: jax.Array,
    dims: Sequence[int] | None,
    correction: int | None = 1,
    output_dtype: torch.dtype | None = None,
) -> jax.Array:
    return _var(x, None if dims is None else tuple(dims), correction)


@lowers(aten.prod.default)
def _prod_all(x: jax.Array, dtype: torch.dtype | None = None) -> jax.Array:
    return jnp.prod(_counting(x, dtype))


@lowers(aten.prod.dim_int)
def _prod(
    x: jax.Array, dim: int, keepdim: bool = False, dtype: torch.dtype | None = None
) -> jax.Array:
    return jnp.prod(_counting(x, dtype), dim, keepdims=keepdim)


@lowers(aten.any.default, aten.any.dim, aten.any.dims)
def _any(x: jax.Array, dims: Dims = None, keepdim: bool = False) -> jax.Array:
    return jnp.any(x, _axes(dims), keepdims=keepdim)


@lowers(aten.all.default, aten.all.dim, aten.all.dims)
def _all(x: jax.Array, dims: Dims = None, keepdim: bool = False) -> jax.Array:
    return jnp.all(x, _axes(dims), keepdims=keepdim)


@lowers(aten.amax.default)
def _amax(x: jax.Array, dims: Dims = (), keepdim: bool = False) -> jax.Array:
    return jnp.max(x, _axes(dims), keepdims=keepdim)


@lowers(aten.amin.default)
def _amin(x: jax.Array, dims: Dims = (), keepdim: bool = False) -> jax.Array:
    return jnp.min(x, _axes(dims), keepdims=keepdim)


@lowers(aten.max.default)
def _max_all(x: jax.Array) -> jax.Array:
    return jnp.max(x)


@lowers(aten.min.default)
def _min_all(x: jax.Array) -> jax.Array:
    return jnp.min(x)


@lowers(aten.argmax.default)
def _argmax(x: jax.Array, dim: int | None = None, keepdim: bool = False) -> jax.Array:
    return jnp.argmax(x, dim, keepdims=keepdim)


@lowers(aten.argmin.default)
def _argmin(x: jax.Array, dim: int | None = None, keepdim: bool = False) -> jax.Array:
    return jnp.argmin(x, dim, keepdims=keepdim)


def picked(x: jax.Array, index: jax.Array, dim: int, keepdim: bool) -> tuple[jax.Array, jax.Array]:
    """Return the elements of `x` at `index`, which has size 1 along `dim`, and the index."""
    values = jnp.take_along_axis(x, index, dim)
    return (values, index) if keepdim else (values.squeeze(dim), index.squeeze(dim))


def only(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return a scalar and the index 0, as torch does for reductions of scalars."""
    return x, jnp.zeros((), jnp.int32)


@lowers(aten.max.dim)
def _max(x: jax.Array, dim: int, keepdim: bool = False) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return only(x)
    return picked(x, jnp.argmax(x, dim, keepdims=True), dim, keepdim)


@lowers(aten.min.dim)
def _min(x: jax.Array, dim: int, keepdim: bool = False) -> tuple[jax.Array, jax.Array]:
    if x.ndim == 0:
        return only(x)
    return picked(x, jnp.argmin(x, dim, keepdims=True), dim, keepdim)


@lowers(aten.cumsum.default)
def _cumsum(x: jax.Array, dim: int, dtype: torch.dtype | None = None) -> jax.Array:
    x = _counting(x, dtype)
    return jnp.cumsum(x, dim) if x.ndim else x


@lowers(aten.cumprod.default)
def _cumprod(x: jax.Array, dim: int, dtype: torch.dtype | None = None) -> jax.Array:
    x = _counting(x, dtype)
    return jnp.cumprod(x, dim) if x.ndim else x


@lowers(aten.logcumsumexp.default)
def _logcumsumexp(x: jax.Array, dim: int) -> jax.Array:
    return lax.cumlogsumexp(x, dim % x.ndim) if x.ndim else x


def _running(
    x: jax.Array, dim: int, running: Callable[..., jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Return the running extreme and its index, the last one if values are equal."""
    if x.ndim == 0:
        return only(x)
    dim %= x.ndim
    extreme = running(x, dim)
    here = lax.broadcasted_iota(jnp.int32, x.shape, dim)
    return extreme, lax.cummax(jnp.where((x == extreme) | jnp.isnan(x), here, 0), dim)


@lowers(aten.cummax.default)
def _cummax(x: jax.Array, dim: int) -> tuple[jax.Array, jax.Array]:
    return _running(x, dim, lax.cummax)


@lowers(aten.cummin.default)
def _cummin(x: jax.Array, dim: int) -> tuple[Any, Any]:
    return _running(x, dim, lax.cummin)
