"""Views by strides. JAX arrays have no strides, so the memory layout is taken from the trace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch

from medjax_torch.lowerings.table import Kind, Traced, lowers

aten = torch.ops.aten


def _storage_order(tensor: Any) -> list[int]:
    """Return the dimensions in memory order, the slowest-varying first.

    Raises
    ------
    ValueError
        If the tensor has gaps or overlaps in memory, which arrays in JAX cannot have.
    """
    order = sorted(range(tensor.dim()), key=lambda d: (-tensor.stride(d), tensor.shape[d] != 1))
    expected = math.prod(tensor.shape)
    for dim in order:
        if tensor.shape[dim] == 1:
            continue
        expected //= tensor.shape[dim]
        if tensor.stride(dim) != expected:
            raise ValueError(
                f"as_strided of a tensor of shape {tuple(tensor.shape)} with strides "
                f"{tensor.stride()} cannot be lowered, as it has gaps or overlaps in memory. "
                "Call .contiguous() before it."
            )
    return order


def _strided_places(
    size: Sequence[int], stride: Sequence[int], offset: int, total: int
) -> np.ndarray:
    places = np.full(tuple(size), offset)
    for dim, step in enumerate(stride):
        along = (np.arange(size[dim]) * step).reshape([-1] + [1] * (len(size) - dim - 1))
        places = places + along
    if places.size and places.max() >= total:
        raise ValueError(
            f"as_strided reads element {places.max()} of a tensor of {total} elements: it reaches "
            "beyond a view into its base. Call it on the base tensor."
        )
    return places


@lowers(aten.as_strided.default, aten.as_strided_copy.default, kind=Kind.TRACED)
def _as_strided(
    traced: Traced,
    x: jax.Array,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> jax.Array:
    memory = x.transpose(_storage_order(traced.arguments[0])).reshape(-1)
    return memory[_strided_places(size, stride, offset or 0, x.size)]


@lowers(aten.as_strided_scatter.default, kind=Kind.TRACED)
def _as_strided_scatter(
    traced: Traced,
    x: jax.Array,
    source: jax.Array,
    size: Sequence[int],
    stride: Sequence[int],
    offset: int | None = None,
) -> jax.Array:
    order = _storage_order(traced.arguments[0])
    places = _strided_places(size, stride, offset or 0, x.size)
    memory = x.transpose(order).reshape(-1).at[places].set(source)
    back = [order.index(dim) for dim in range(x.ndim)]
    return memory.reshape([x.shape[dim] for dim in order]).transpose(back)
