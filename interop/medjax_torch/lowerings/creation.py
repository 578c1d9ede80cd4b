"""Operators that create tensors from numbers, or from the shape of another tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.dtypes import cast, jax_dtype, maybe_dtype, number
from medjax_torch.lowerings.table import Kind, Traced, lowers

aten = torch.ops.aten
prims = torch.ops.prims


@lowers(aten.full.default, aten.scalar_tensor.default, kind=Kind.TRACED)
def _full(traced: Traced, *arguments: Any, **placement: Any) -> jax.Array:
    # Without a dtype torch uses its default one, which the trace recorded.
    value = arguments[-1]
    return jnp.broadcast_to(number(value, jax_dtype(traced.output.dtype)), traced.output.shape)


@lowers(
    aten.zeros.default,
    aten.empty.memory_format,
    aten.empty_permuted.default,
    aten.empty_strided.default,
    aten.new_empty_strided.default,
    aten.new_empty.default,
    aten.new_zeros.default,
    aten.empty_like.default,
    aten.zeros_like.default,
    kind=Kind.TRACED,
)
def _zeros(traced: Traced, *arguments: Any, **placement: Any) -> jax.Array:
    # Tensors that torch leaves uninitialised are filled with 0.
    return jnp.zeros(traced.output.shape, jax_dtype(traced.output.dtype))


@lowers(aten.ones.default, aten.new_ones.default, aten.ones_like.default, kind=Kind.TRACED)
def _ones(traced: Traced, *arguments: Any, **placement: Any) -> jax.Array:
    return jnp.ones(traced.output.shape, jax_dtype(traced.output.dtype))


@lowers(aten.full_like.default)
def _full_like(
    x: jax.Array, value: Any, dtype: torch.dtype | None = None, **placement: Any
) -> jax.Array:
    return jnp.broadcast_to(number(value, maybe_dtype(dtype) or x.dtype), x.shape)


@lowers(aten.new_full.default)
def _new_full(
    x: jax.Array,
    shape: Sequence[int],
    value: Any,
    dtype: torch.dtype | None = None,
    **placement: Any,
) -> jax.Array:
    return jnp.broadcast_to(number(value, maybe_dtype(dtype) or x.dtype), shape)


@lowers(aten.fill.Scalar, aten.fill.Tensor)
def _fill(x: jax.Array, value: Any) -> jax.Array:
    return jnp.broadcast_to(number(value, x.dtype), x.shape)


@lowers(aten.copy.default)
def _copy(x: jax.Array, source: jax.Array, non_blocking: bool = False) -> jax.Array:
    return cast(jnp.broadcast_to(source, x.shape), x.dtype)


@lowers(aten.arange.start_step)
def _arange(
    start: Any, end: Any, step: Any = 1, dtype: torch.dtype | None = None, **placement: Any
) -> jax.Array:
    return jnp.arange(start, end, step, dtype=maybe_dtype(dtype))


@lowers(prims.iota.default)
def _iota(length: int, *, start: int, step: int, dtype: torch.dtype, **rest: Any) -> jax.Array:
    return (jnp.arange(length) * step + start).astype(jax_dtype(dtype))


@lowers(aten.linspace.default, kind=Kind.TRACED)
def _linspace(traced: Traced, start: Any, end: Any, steps: int, **placement: Any) -> jax.Array:
    return jnp.linspace(start, end, steps, dtype=jax_dtype(traced.output.dtype))


@lowers(aten.eye.default, aten.eye.m, kind=Kind.TRACED)
def _eye(traced: Traced, *sizes: int, **placement: Any) -> jax.Array:
    rows, columns = traced.output.shape
    return jnp.eye(rows, columns, dtype=jax_dtype(traced.output.dtype))


def _window(operator: Any) -> Callable[..., jax.Array]:
    """Return the lowering of a window function, whose values torch computes once, in the trace."""

    def lowering(traced: Traced, *settings: Any, **placement: Any) -> jax.Array:
        window = operator(*settings, dtype=traced.output.dtype)
        return jnp.asarray(window.double().numpy(), jax_dtype(traced.output.dtype))

    return lowering


for _windows in (
    aten.bartlett_window,
    aten.blackman_window,
    aten.hamming_window,
    aten.hann_window,
    aten.kaiser_window,
):
    for _name in _windows.overloads():
        if not _name.endswith("out"):
            _operator = getattr(_windows, _name)
            lowers(_operator, kind=Kind.TRACED)(_window(_operator))
