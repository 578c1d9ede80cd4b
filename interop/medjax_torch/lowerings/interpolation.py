"""Resizing by nearest, linear and cubic interpolation, and the derivatives.

Interpolation works along one dimension after another. Along each, every output element is a
weighted sum of a few input elements, its taps; the derivative spreads along the same taps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten

Taps = list[tuple[np.ndarray, np.ndarray]]
"""Pairs of input indices and weights, each ``(output length,)``."""

Rule = Callable[[int, int, float | None, bool], Taps]


def _ratio(length: int, count: int, scale: float | None) -> np.float32:
    """Return how many input elements an output element spans, in float32 as torch computes it."""
    return np.float32(1 / scale if scale else np.float32(length) / np.float32(count))


def _nearest(length: int, count: int, scale: float | None, align: bool) -> Taps:
    index = np.floor(np.arange(count, dtype=np.float32) * _ratio(length, count, scale))
    return [(np.minimum(index.astype(int), length - 1), np.ones(count, np.float32))]


def _nearest_exact(length: int, count: int, scale: float | None, align: bool) -> Taps:
    centre = np.arange(count, dtype=np.float32) + np.float32(0.5)
    index = np.floor(centre * _ratio(length, count, scale))
    return [(np.minimum(index.astype(int), length - 1), np.ones(count, np.float32))]


def _source(length: int, count: int, scale: float | None, align: bool) -> np.ndarray:
    """Return the position of each output element in the input."""
    at = np.arange(count, dtype=np.float32)
    if align:
        return at * np.float32((length - 1) / (count - 1) if count > 1 else 0)
    half = np.float32(0.5)
    return (at + half) * _ratio(length, count, scale) - half


def _linear(length: int, count: int, scale: float | None, align: bool) -> Taps:
    source = np.maximum(_source(length, count, scale, align), 0)
    low = np.minimum(np.floor(source).astype(int), length - 1)
    weight = np.clip(source - low, 0, 1).astype(np.float32)
    return [(low, 1 - weight), (np.minimum(low + 1, length - 1), weight)]


def _cubic(length: int, count: int, scale: float | None, align: bool) -> Taps:
    """Return the taps of Keys' cubic kernel with torch's a = -0.75 (IEEE Trans. ASSP 29, 1981)."""
    source = _source(length, count, scale, align)
    low = np.floor(source)
    a = np.float32(-0.75)
    taps = []
    for shift in (-1, 0, 1, 2):
        x = np.abs(source - low - shift)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        index = np.clip(low.astype(int) + shift, 0, length - 1)
        taps.append((index, np.where(x <= 1, near, far).astype(np.float32)))
    return taps


def _along(dim: int, rank: int, values: Any) -> Any:
    return values.reshape([-1 if d == dim else 1 for d in range(rank)])


def _plan(
    rule: Rule,
    lengths: Sequence[int],
    counts: Sequence[int],
    options: Sequence[Any],
    takes_align: bool,
) -> list[Taps]:
    """Return the taps of each dimension; `options` are [align_corners,] and the scales."""
    align = bool(options[0]) if takes_align else False
    scales = list(options[1:] if takes_align else options)
    scales += [None] * (len(counts) - len(scales))
    arguments = zip(lengths, counts, scales, strict=True)
    return [rule(length, count, scale, align) for length, count, scale in arguments]


def _resize(
    x: jax.Array, size: Sequence[int], *options: Any, rule: Rule, takes_align: bool
) -> jax.Array:
    first = x.ndim - len(size)
    plan = _plan(rule, x.shape[first:], size, options, takes_align)
    for dim, taps in enumerate(plan, start=first):
        parts = [
            jnp.take(x, index, dim) * _along(dim, x.ndim, weight.astype(x.dtype))
            for index, weight in taps
        ]
        x = functools.reduce(jnp.add, parts)
    return x


def _resize_backward(
    gradient: jax.Array,
    size: Sequence[int],
    input_size: Sequence[int],
    *options: Any,
    rule: Rule,
    takes_align: bool,
) -> jax.Array:
    first = gradient.ndim - len(size)
    plan = _plan(rule, input_size[first:], size, options, takes_align)
    for dim, taps in enumerate(plan, start=first):
        shape = (*gradient.shape[:dim], input_size[dim], *gradient.shape[dim + 1 :])
        sums = jnp.zeros(shape, gradient.dtype)
        for index, weight in taps:
            weighted = gradient * _along(dim, gradient.ndim, weight.astype(gradient.dtype))
            sums = sums.at[(slice(None),) * dim + (index,)].add(weighted)
        gradient = sums
    return gradient


_RULES: dict[str, tuple[Rule, bool]] = {
    "upsample_nearest1d": (_nearest, False),
    "upsample_nearest2d": (_nearest, False),
    "upsample_nearest3d": (_nearest, False),
    "_upsample_nearest_exact1d": (_nearest_exact, False),
    "_upsample_nearest_exact2d": (_nearest_exact, False),
    "_upsample_nearest_exact3d": (_nearest_exact, False),
    "upsample_linear1d": (_linear, True),
    "upsample_bilinear2d": (_linear, True),
    "upsample_trilinear3d": (_linear, True),
    "upsample_bicubic2d": (_cubic, True),
}

for _name, (_rule, _takes_align) in _RULES.items():
    _options: dict[str, Any] = {"rule": _rule, "takes_align": _takes_align}
    lowers(getattr(aten, _name).default)(functools.partial(_resize, **_options))
    _backward = getattr(aten, f"{_name}_backward").default
    lowers(_backward)(functools.partial(_resize_backward, **_options))
