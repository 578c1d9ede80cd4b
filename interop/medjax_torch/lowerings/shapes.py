"""Operators that rearrange a tensor without computing: views, slices, joins, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from medjax_torch.lowerings.dtypes import jax_dtype, number
from medjax_torch.lowerings.table import Kind, Traced, lowers, lowers_each

aten = torch.ops.aten
prims = torch.ops.prims


@lowers(
    aten.alias.default,
    aten.alias_copy.default,
    aten.clone.default,
    aten.detach.default,
    aten.detach_copy.default,
    aten.lift_fresh.default,
    aten.lift_fresh_copy.default,
)
def _same(x: jax.Array, **placement: Any) -> jax.Array:
    return x


lowers_each(
    {
        aten.view.default: jnp.reshape,
        aten.view_copy.default: jnp.reshape,
        aten._unsafe_view.default: jnp.reshape,
        aten._reshape_copy.default: jnp.reshape,
        aten.permute.default: jnp.transpose,
        aten.permute_copy.default: jnp.transpose,
        aten.flip.default: jnp.flip,
        aten.repeat.default: jnp.tile,
        aten.stack.default: jnp.stack,
        aten.tril.default: jnp.tril,
        aten.triu.default: jnp.triu,
        aten.unsqueeze.default: jnp.expand_dims,
        aten.unsqueeze_copy.default: jnp.expand_dims,
        aten.diagonal.default: jnp.diagonal,
        prims.broadcast_in_dim.default: lax.broadcast_in_dim,
    }
)


@lowers(aten.diagonal_copy.default)
def _diagonal(x: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> jax.Array:
    result: jax.Array = jnp.diagonal(x, offset, dim1, dim2)
    return result


@lowers(aten.view.dtype, aten.view_copy.dtype)
def _view_as_dtype(x: jax.Array, dtype: torch.dtype) -> jax.Array:
    target = jax_dtype(dtype)
    ratio = target.itemsize // x.dtype.itemsize
    if ratio > 1:
        x = x.reshape(*x.shape[:-1], -1, ratio)
    parts = lax.bitcast_convert_type(x, target)
    # JAX adds a dimension for narrower elements.
    return parts.reshape(*x.shape[:-1], -1) if parts.ndim > x.ndim else parts


@lowers(aten.transpose.int, aten.transpose_copy.int)
def _transpose(x: jax.Array, first: int, second: int) -> jax.Array:
    return jnp.swapaxes(x, first, second) if x.ndim else x


@lowers(aten.t.default, aten.t_copy.default)
def _t(x: jax.Array) -> jax.Array:
    return x.T


@lowers(aten.expand.default, aten.expand_copy.default)
def _expand(x: jax.Array, size: Sequence[int], implicit: bool = False) -> jax.Array:
    kept = (1,) * (len(size) - x.ndim) + x.shape
    return jnp.broadcast_to(x, [k if s == -1 else s for s, k in zip(size, kept, strict=True)])


@lowers(
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.squeeze_copy.default,
    aten.squeeze_copy.dim,
    aten.squeeze_copy.dims,
    kind=Kind.TRACED,
)
def _squeeze(traced: Traced, x: jax.Array, dims: Any = None) -> jax.Array:
    return x.reshape(traced.output.shape)


def _window(rank: int, dim: int, item: Any) -> tuple[Any, ...]:
    """Return an index that is `item` along one dimension and a full slice along the others."""
    index: list[Any] = [slice(None)] * rank
    index[dim] = item
    return tuple(index)


@lowers(aten.slice.Tensor, aten.slice_copy.Tensor)
def _slice(
    x: jax.Array, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> jax.Array:
    return x[_window(x.ndim, dim, slice(start, end, step))]


@lowers(aten.slice_scatter.default)
def _slice_scatter(
    x: jax.Array,
    source: jax.Array,
    dim: int = 0,
    start: Any = None,
    end: Any = None,
    step: int = 1,
) -> jax.Array:
    return x.at[_window(x.ndim, dim, slice(start, end, step))].set(source.astype(x.dtype))


@lowers(aten.select.int, aten.select_copy.int)
def _select(x: jax.Array, dim: int, index: Any) -> jax.Array:
    return x[_window(x.ndim, dim, index)]


@lowers(aten.select_scatter.default)
def _select_scatter(x: jax.Array, source: jax.Array, dim: int, index: Any) -> jax.Array:
    return x.at[_window(x.ndim, dim, index)].set(source.astype(x.dtype))


@lowers(aten.diagonal_scatter.default)
def _diagonal_scatter(
    x: jax.Array, source: jax.Array, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> jax.Array:
    places = np.diagonal(np.arange(x.size).reshape(x.shape), offset, dim1, dim2)
    flat = x.reshape(-1).at[places].set(source.astype(x.dtype))
    return flat.reshape(x.shape)


@lowers(aten.unbind.int, aten.unbind_copy.int)
def _unbind(x: jax.Array, dim: int = 0) -> list[jax.Array]:
    return [_select(x, dim, i) for i in range(x.shape[dim])]


@lowers(aten.split_with_sizes.default, aten.split_with_sizes_copy.default)
def _split_with_sizes(x: jax.Array, sizes: Sequence[int], dim: int = 0) -> list[jax.Array]:
    return jnp.split(x, np.cumsum(sizes)[:-1].tolist(), dim)


@lowers(aten.split.Tensor, aten.split_copy.Tensor)
def _split(x: jax.Array, size: int, dim: int = 0) -> list[jax.Array]:
    return jnp.split(x, list(range(size, x.shape[dim], size)), dim)


@lowers(aten.cat.default)
def _cat(tensors: Sequence[jax.Array], dim: int = 0) -> jax.Array:
    # torch allows empty vectors beside tensors of any rank.
    return jnp.concatenate([x for x in tensors if x.shape != (0,)] or tensors, dim)


@lowers(aten.roll.default)
def _roll(x: jax.Array, shifts: Sequence[int], dims: Sequence[int] = ()) -> jax.Array:
    return jnp.roll(x, shifts, dims) if dims else jnp.roll(x, shifts[0])


@lowers(aten.constant_pad_nd.default)
def _constant_pad(x: jax.Array, widths: Sequence[int], value: Any = 0) -> jax.Array:
    # torch lists (before, after) starting from the last dimension; negative widths crop.
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    untouched = [(0, 0)] * (x.ndim - len(pairs))
    config = [(before, after, 0) for before, after in untouched + pairs]
    return lax.pad(x, number(value, x.dtype), config)


@lowers(
    aten.replication_pad1d_backward.default,
    aten.replication_pad2d_backward.default,
    aten.replication_pad3d_backward.default,
)
def _replication_pad_backward(
    gradient: jax.Array, x: jax.Array, widths: Sequence[int]
) -> jax.Array:
    pairs = list(zip(widths[::2], widths[1::2], strict=True))[::-1]
    for dim, (before, after) in enumerate(pairs, start=x.ndim - len(pairs)):
        length = x.shape[dim]
        source = np.clip(np.arange(-before, length + after), 0, length - 1)
        shape = (*gradient.shape[:dim], length, *gradient.shape[dim + 1 :])
        sums = jnp.zeros(shape, gradient.dtype)
        gradient = sums.at[_window(x.ndim, dim, source)].add(gradient)
    return gradient


@lowers(aten.view_as_real.default, aten.view_as_real_copy.default)
def _view_as_real(x: jax.Array) -> jax.Array:
    return jnp.stack([x.real, x.imag], -1)


@lowers(aten.view_as_complex.default, aten.view_as_complex_copy.default)
def _view_as_complex(x: jax.Array) -> jax.Array:
    return lax.complex(x[..., 0], x[..., 1])
