"""Attention by one library call: cuDNN where it applies, XLA's implementation elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax.models.attention import attend_to_first, cudnn_applies, real_comes_first
from medjax_torch.lowerings import custom_ops as custom_ops
from medjax_torch.lowerings.precision import rounded
from medjax_torch.lowerings.table import lowers

_Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@lowers(torch.ops.medjax.attention.default)
def attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None,
    is_causal: bool,
    scale: float | None,
) -> jax.Array:
    """Return the attended values; arguments and result are those of `custom_ops.attention`."""
    query, key, value = _as_jax_has_them(query, key, value)
    attended: jax.Array = _by_library(
        lambda attend: attend(query, key, value), query, key, mask, is_causal, scale
    )
    return attended.swapaxes(1, 2)


@lowers(torch.ops.medjax.attention_backward.default)
def _backward(
    gradient: jax.Array, query: jax.Array, key: jax.Array, value: jax.Array, *how: Any
) -> list[jax.Array]:
    gradient, query, key, value = _as_jax_has_them(gradient, query, key, value)

    def derivatives(attend: _Attend) -> Any:
        return jax.vjp(attend, query, key, value)[1](gradient)

    by_inputs = _by_library(derivatives, query, key, *how)
    return [derivative.swapaxes(1, 2) for derivative in by_inputs]


def _as_jax_has_them(*arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Move the heads after the length, and cast to the dtype used for products."""
    return tuple(rounded(array).swapaxes(1, 2) for array in arrays)


def _by_library(
    compute: Callable[[_Attend], Any],
    query: jax.Array,
    key: jax.Array,
    mask: jax.Array | None,
    is_causal: bool,
    scale: float | None,
) -> Any:
    """Return the result of `compute` for the attention function that fits the arguments.

    A mask that hides nothing but padding at the end of rows can be passed to cuDNN as one length
    per row. Whether it does is decided while the step runs.
    """

    def plain(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            is_causal=is_causal,
            scale=scale,
            implementation="cudnn" if cudnn_applies(query) else "xla",
        )

    if mask is None:
        return compute(plain)
    rows, length, heads, _ = query.shape
    allowed = jnp.broadcast_to(mask, (rows, heads, length, key.shape[1]))
    sees_any = allowed.any(-1).swapaxes(1, 2)[..., None]

    def masked(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        attended = jax.nn.dot_product_attention(
            query, key, value, mask=allowed, scale=scale, implementation="xla"
        )
        return jnp.where(sees_any, attended, 0)  # as in torch; JAX averages all values instead

    if not cudnn_applies(query):
        return compute(masked)
    real = allowed[:, 0, 0]

    def padded(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        return jnp.where(sees_any, attend_to_first(query, key, value, real, scale=scale), 0)

    hides_padding = (allowed == real[:, None, None]).all() & real_comes_first(real).all()
    return lax.cond(hides_padding, lambda: compute(padded), lambda: compute(masked))
