"""Maximum and average pooling, windowed and adaptive, and the derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax import lax

from medjax_torch.lowerings.convolution import per_dim
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


def _windows(
    length: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool
) -> int:
    """Return how many windows fit: the formula in the documentation of `torch.nn.MaxPool2d`."""
    room = length + 2 * padding - dilation * (kernel - 1) - 1
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    # In ceil mode a window must start inside the input or the padding on its left.
    return count - 1 if ceil_mode and (count - 1) * stride >= length + padding else count


def _lowest(dtype: Any) -> Any:
    return -jnp.inf if jnp.issubdtype(dtype, jnp.floating) else jnp.iinfo(dtype).min


def _members(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which elements belong to each window, and whether they are inside the input.

    Both are ``(*windows, prod(kernel))``. Elements are numbered in the flattened input; those
    outside have the number of the nearest one inside.
    """
    numbers = np.zeros((1,) * (2 * len(sizes)), np.int64)
    inside = np.ones(numbers.shape, bool)
    geometry = zip(sizes, kernel, stride, padding, dilation, strict=True)
    rank = len(sizes)
    for dim, (length, k, s, p, d) in enumerate(geometry):
        count = _windows(length, k, s, p, d, ceil_mode)
        at = np.arange(count)[:, None] * s + np.arange(k) * d - p
        shape = [1] * (2 * rank)
        shape[dim], shape[rank + dim] = count, k
        along = at.reshape(shape)
        numbers = numbers * length + np.clip(along, 0, length - 1)
        inside = inside & (along >= 0) & (along < length)
    windows = numbers.shape[:rank]
    return numbers.reshape(*windows, -1), inside.reshape(*windows, -1)


def _max_of(
    x: jax.Array, rank: int, numbers: np.ndarray, inside: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Return the maximum of each window and the number of its first occurrence."""
    flat = x.reshape(*x.shape[: x.ndim - rank], -1)
    lowest = _lowest(x.dtype)
    values = jnp.where(inside, flat[..., numbers], lowest)
    best = jnp.argmax(values, -1, keepdims=True)
    # A window of -inf ties with the padding; torch then returns the index of an element inside.
    nothing = jnp.take_along_axis(values, best, -1) == lowest
    best = jnp.where(nothing, np.argmax(inside, -1)[..., None], best)
    chosen = jnp.take_along_axis(jnp.broadcast_to(numbers, values.shape), best, -1)
    return jnp.take_along_axis(values, best, -1)[..., 0], chosen[..., 0]


def _max_pool(
    x: jax.Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
    *,
    rank: int,
) -> tuple[jax.Array, jax.Array]:
    kernel = per_dim(kernel, rank)
    stride = per_dim(stride, rank) if stride else kernel
    padding, dilation = per_dim(padding, rank), per_dim(dilation, rank)
    members = _members(x.shape[-rank:], kernel, stride, padding, dilation, ceil_mode)
    return _max_of(x, rank, *members)


def _max_pool_backward(gradient: jax.Array, x: jax.Array, *options: Any, rank: int) -> jax.Array:
    """Add the gradient of each window at the index of its maximum, which is the last option."""
    index = options[-1]
    rows = math.prod(x.shape[: x.ndim - rank])
    sums = jnp.zeros((rows, math.prod(x.shape[x.ndim - rank :])), gradient.dtype)
    row = jnp.arange(rows)[:, None]
    sums = sums.at[row, index.reshape(rows, -1)].add(gradient.reshape(rows, -1))
    return sums.reshape(x.shape)


def _adaptive_windows(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the elements of each of `count` windows over `length`, and which are not filler.

    Both are ``(count, widest)``; narrower windows are padded with elements that do not count.
    The division into windows is torch's (aten/src/ATen/native/AdaptivePooling.h).
    """
    window = np.arange(count)
    start, end = window * length // count, -(-(window + 1) * length // count)
    at = start[:, None] + np.arange((end - start).max(initial=1))
    return np.minimum(at, length - 1), at < end[:, None]


def _adaptive_max_pool(
    x: jax.Array, size: Sequence[int], *, rank: int
) -> tuple[jax.Array, jax.Array]:
    numbers = np.zeros((1,) * (2 * rank), np.int64)
    inside = np.ones(numbers.shape, bool)
    for dim, (length, count) in enumerate(zip(x.shape[-rank:], size, strict=True)):
        at, within = _adaptive_windows(length, count)
        shape = [1] * (2 * rank)
        shape[dim], shape[rank + dim] = at.shape
        numbers = numbers * length + at.reshape(shape)
        inside = inside & within.reshape(shape)
    windows = tuple(size)
    return _max_of(x, rank, numbers.reshape(*windows, -1), inside.reshape(*windows, -1))


def _avg_pool(
    x: jax.Array,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor: int | None = None,
    *,
    rank: int,
) -> jax.Array:
    kernel = per_dim(kernel, rank)
    stride = per_dim(stride, rank) if stride else kernel
    padding = per_dim(padding, rank)
    counts = np.ones((), np.float32)
    margins = []
    for length, k, s, p in zip(x.shape[-rank:], kernel, stride, padding, strict=True):
        count = _windows(length, k, s, p, 1, ceil_mode)
        starts = np.arange(count) * s - p
        # In ceil mode windows may reach beyond the padding; that part is never counted.
        low, high = (-p, length + p) if count_include_pad else (0, length)
        sizes = np.minimum(starts + k, high) - np.maximum(starts, low)
        counts = counts[..., None] * sizes
        margins.append((p, (count - 1) * s + k - length - p, 0))
    kept = x.ndim - rank
    # A negative margin cuts off what no window reaches.
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0)] * kept + margins)
    ones = (1,) * kept
    zero = np.zeros((), x.dtype)
    sums = lax.reduce_window(
        padded, zero, lax.add, ones + tuple(kernel), ones + tuple(stride), "VALID"
    )
    result: jax.Array = sums / (divisor or counts.astype(x.dtype))
    return result


def _avg_pool_backward(gradient: jax.Array, x: jax.Array, *options: Any, rank: int) -> jax.Array:
    pool = functools.partial(_avg_pool, rank=rank)
    result: jax.Array = jax.vjp(lambda x: pool(x, *options), x)[1](gradient)[0]
    return result


def _adaptive_avg_pool(x: jax.Array, size: Sequence[int], *, rank: int) -> jax.Array:
    for dim, count in enumerate(size, start=x.ndim - rank):
        at, within = _adaptive_windows(x.shape[dim], count)
        values = jnp.where(within, jnp.moveaxis(x, dim, -1)[..., at], 0)
        x = jnp.moveaxis(values.sum(-1) / within.sum(1).astype(x.dtype), -1, dim)
    return x


def _adaptive_avg_pool_backward(gradient: jax.Array, x: jax.Array, *, rank: int) -> jax.Array:
    size = gradient.shape[gradient.ndim - rank :]
    pool = functools.partial(_adaptive_avg_pool, size=size, rank=rank)
    result: jax.Array = jax.vjp(pool, x)[1](gradient)[0]
    return result


_OPERATORS: dict[str, Callable[..., Any]] = {
    "max_pool{}d_with_indices": _max_pool,
    "max_pool{}d_with_indices_backward": _max_pool_backward,
    "adaptive_max_pool{}d": _adaptive_max_pool,
    "adaptive_max_pool{}d_backward": _max_pool_backward,
    "avg_pool{}d": _avg_pool,
    "avg_pool{}d_backward": _avg_pool_backward,
    "_adaptive_avg_pool{}d": _adaptive_avg_pool,
    "_adaptive_avg_pool{}d_backward": _adaptive_avg_pool_backward,
}
"""By operator name; torch computes one-dimensional pooling with the two-dimensional operators."""

for _name, _function in _OPERATORS.items():
    for _rank in (2, 3):
        _target = getattr(aten, _name.format(_rank)).default
        lowers(_target)(functools.partial(_function, rank=_rank))
