"""Softmax and torch's fused operators of weight normalisation.

torch decomposes the other normalisations into arithmetic before they reach the table.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten


@lowers(aten._softmax.default)
def _softmax(x: jax.Array, dim: int, half_to_float: bool) -> jax.Array:
    x = x.astype(jnp.float32) if half_to_float else x
    return jax.nn.softmax(x, dim) if x.ndim else jnp.ones_like(x)


@lowers(aten._log_softmax.default)
def _log_softmax(x: jax.Array, dim: int, half_to_float: bool) -> jax.Array:
    x = x.astype(jnp.float32) if half_to_float else x
    return jax.nn.log_softmax(x, dim) if x.ndim else jnp.zeros_like(x)


@lowers(aten._softmax_backward_data.default)
def _softmax_backward(
    gradient: jax.Array, output: jax.Array, dim: int, dtype: torch.dtype
) -> jax.Array:
    weighted = gradient * output
    return weighted - output * weighted.sum(dim, keepdims=True)


@lowers(aten._log_softmax_backward_data.default)
def _log_softmax_backward(
    gradient: jax.Array, output: jax.Array, dim: int, dtype: torch.dtype
) -> jax.Array:
    return gradient - jnp.exp(output) * gradient.sum(dim, keepdims=True)


def _norm_except(v: jax.Array, dim: int) -> jax.Array:
    others = tuple(d for d in range(v.ndim) if d != dim)
    return jnp.sqrt(jnp.sum(v * v, others, keepdims=True))


@lowers(aten._weight_norm_interface.default)
def _weight_norm(v: jax.Array, g: jax.Array, dim: int = 0) -> tuple[jax.Array, jax.Array]:
    """Return g v / |v|, with the norm taken over all dimensions but `dim`, and that norm."""
    norm = _norm_except(v, dim % v.ndim)
    return v * (g / norm), norm


@lowers(aten._weight_norm_interface_backward.default)
def _weight_norm_backward(
    gradient: jax.Array, v: jax.Array, g: jax.Array, norm: jax.Array, dim: int
) -> tuple[jax.Array, jax.Array]:
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    along = jnp.sum(gradient * v, others, keepdims=True) / norm
    return (gradient - v * along / norm) * (g / norm), along
