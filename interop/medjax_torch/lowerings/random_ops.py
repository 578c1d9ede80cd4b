"""Operators that draw random numbers; every call has its own JAX key."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch

from medjax.models.dropout import keep_mask
from medjax_torch.lowerings.dtypes import maybe_dtype
from medjax_torch.lowerings.table import Kind
from medjax_torch.lowerings.table import lowers as _lowers

aten = torch.ops.aten
lowers = functools.partial(_lowers, kind=Kind.RANDOM)


@lowers(aten.native_dropout.default)
def _dropout(
    key: jax.Array, x: jax.Array, p: float, train: bool | None
) -> tuple[jax.Array, jax.Array]:
    """Return `x` with elements dropped, and the mask of the kept ones."""
    if train is False:
        return x, jnp.ones(x.shape, bool)
    keep = jnp.zeros(x.shape, bool) if p == 1 else keep_mask(key, p, x.shape)
    return jnp.where(keep, x * (1 / (1 - p) if p < 1 else 0), 0), keep


@lowers(aten.bernoulli.p)
def _bernoulli(key: jax.Array, x: jax.Array, p: float = 0.5, **rest: Any) -> jax.Array:
    # torch decomposes dropout on the CPU into this operator.
    drawn = keep_mask(key, 1 - p, x.shape) if p > 0 else jnp.zeros(x.shape, bool)
    return drawn.astype(x.dtype)


@lowers(aten.bernoulli.default)
def _bernoulli_of(key: jax.Array, p: jax.Array, **rest: Any) -> jax.Array:
    return jax.random.bernoulli(key, p).astype(p.dtype)


@lowers(aten.bernoulli.Tensor)
def _bernoulli_like(key: jax.Array, x: jax.Array, p: jax.Array, **rest: Any) -> jax.Array:
    return jax.random.bernoulli(key, p, x.shape).astype(x.dtype)


def _floating(dtype: torch.dtype | None) -> Any:
    return maybe_dtype(dtype) or jnp.float32


@lowers(aten.rand.default)
def _rand(
    key: jax.Array, size: Sequence[int], dtype: torch.dtype | None = None, **rest: Any
) -> jax.Array:
    return jax.random.uniform(key, size, _floating(dtype))


@lowers(aten.rand_like.default)
def _rand_like(
    key: jax.Array, x: jax.Array, dtype: torch.dtype | None = None, **rest: Any
) -> jax.Array:
    return jax.random.uniform(key, x.shape, maybe_dtype(dtype) or x.dtype)


@lowers(aten.randn.default)
def _randn(
    key: jax.Array, size: Sequence[int], dtype: torch.dtype | None = None, **rest: Any
) -> jax.Array:
    return jax.random.normal(key, size, _floating(dtype))


@lowers(aten.randn_like.default)
def _randn_like(
    key: jax.Array, x: jax.Array, dtype: torch.dtype | None = None, **rest: Any
) -> jax.Array:
    return jax.random.normal(key, x.shape, maybe_dtype(dtype) or x.dtype)


@lowers(aten.uniform.default)
def _uniform(
    key: jax.Array, x: jax.Array, low: float = 0.0, high: float = 1.0, **rest: Any
) -> jax.Array:
    return jax.random.uniform(key, x.shape, x.dtype, low, high)


@lowers(aten.normal_functional.default)
def _normal_like(
    key: jax.Array, x: jax.Array, mean: float = 0.0, std: float = 1.0, **rest: Any
) -> jax.Array:
    return mean + std * jax.random.normal(key, x.shape, x.dtype)


@lowers(aten.normal.Tensor_float, aten.normal.float_Tensor, aten.normal.Tensor_Tensor)
def _normal(key: jax.Array, mean: Any, std: Any = 1.0, **rest: Any) -> jax.Array:
    shape = jnp.broadcast_shapes(jnp.shape(mean), jnp.shape(std))
    result: jax.Array = mean + std * jax.random.normal(key, shape, jnp.result_type(mean, std, 1.0))
    return result


@lowers(aten.normal.float_float)
def _normal_of_size(
    key: jax.Array,
    mean: float,
    std: float,
    size: Sequence[int],
    dtype: torch.dtype | None = None,
    **rest: Any,
) -> jax.Array:
    return mean + std * jax.random.normal(key, size, _floating(dtype))


@lowers(aten.exponential.default)
def _exponential(key: jax.Array, x: jax.Array, rate: float = 1.0, **rest: Any) -> jax.Array:
    # torch never draws 0, as programs take the logarithm.
    tiny = jnp.finfo(x.dtype).tiny
    return jnp.maximum(jax.random.exponential(key, x.shape, x.dtype), tiny) / rate


@lowers(aten.randint.default)
def _randint(key: jax.Array, high: int, size: Sequence[int], **rest: Any) -> jax.Array:
    return jax.random.randint(key, size, 0, high)


@lowers(aten.randint.low)
def _randint_from(
    key: jax.Array, low: int, high: int, size: Sequence[int], **rest: Any
) -> jax.Array:
    return jax.random.randint(key, size, low, high)


@lowers(aten.randint_like.default)
def _randint_like(key: jax.Array, x: jax.Array, high: int, **rest: Any) -> jax.Array:
    return jax.random.randint(key, x.shape, 0, high)


@lowers(aten.randint_like.low_dtype)
def _randint_like_from(key: jax.Array, x: jax.Array, low: int, high: int, **rest: Any) -> jax.Array:
    return jax.random.randint(key, x.shape, low, high)


@lowers(aten.randperm.default)
def _randperm(key: jax.Array, length: int, **rest: Any) -> jax.Array:
    return jax.random.permutation(key, length)


@lowers(aten.multinomial.default)
def _multinomial(
    key: jax.Array, weights: jax.Array, count: int, replacement: bool = False, **rest: Any
) -> jax.Array:
    logits = jnp.log(weights)
    if replacement:
        shape = (count, *weights.shape[:-1])
        return jnp.moveaxis(jax.random.categorical(key, logits, shape=shape), 0, -1)
    # The largest of the logits plus Gumbel noise are a sample without replacement.
    noisy = logits + jax.random.gumbel(key, weights.shape)
    return jax.lax.top_k(noisy, count)[1]


@lowers(aten.rrelu_with_noise_functional.default)
def _rrelu(
    key: jax.Array,
    x: jax.Array,
    noise: jax.Array,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: None = None,
) -> tuple[jax.Array, jax.Array]:
    """Return leaky ReLU with random slopes below zero, and the slopes."""
    if not training:
        return jnp.where(x <= 0, x * ((lower + upper) / 2), x), noise
    slope = jax.random.uniform(key, x.shape, x.dtype, lower, upper)
    slope = jnp.where(x <= 0, slope, 1)
    return x * slope, slope


@lowers(aten.poisson.default)
def _poisson(key: jax.Array, rate: jax.Array, **rest: Any) -> jax.Array:
    return jax.random.poisson(key, rate).astype(rate.dtype)


@lowers(aten._standard_gamma.default)
def _gamma(key: jax.Array, shape: jax.Array, **rest: Any) -> jax.Array:
    # torch never draws 0, as the gradient takes the logarithm.
    tiny = jnp.finfo(shape.dtype).tiny
    return jnp.maximum(jax.random.gamma(key, shape, dtype=shape.dtype), tiny)


@_lowers(aten._standard_gamma_grad.default)
def _gamma_grad(shape: jax.Array, drawn: jax.Array) -> jax.Array:
    result: jax.Array = jax.lax.random_gamma_grad(shape, drawn)
    return result


@lowers(aten._sample_dirichlet.default)
def _dirichlet(key: jax.Array, concentration: jax.Array, **rest: Any) -> jax.Array:
    tiny = jnp.finfo(concentration.dtype).tiny
    drawn = jax.random.dirichlet(key, concentration, dtype=concentration.dtype)
    return jnp.maximum(drawn, tiny)


@lowers(aten.binomial.default)
def _binomial(key: jax.Array, count: jax.Array, p: jax.Array, **rest: Any) -> jax.Array:
    return jax.random.binomial(key, count, p, dtype=p.dtype)


@lowers(aten.cauchy.default)
def _cauchy(
    key: jax.Array, x: jax.Array, median: float = 0.0, sigma: float = 1.0, **rest: Any
) -> jax.Array:
    return median + sigma * jax.random.cauchy(key, x.shape, x.dtype)


@lowers(aten.geometric.default)
def _geometric(key: jax.Array, x: jax.Array, p: float, **rest: Any) -> jax.Array:
    return jax.random.geometric(key, p, x.shape).astype(x.dtype)


@lowers(aten.log_normal.default)
def _log_normal(
    key: jax.Array, x: jax.Array, mean: float = 1.0, std: float = 2.0, **rest: Any
) -> jax.Array:
    return jnp.exp(mean + std * jax.random.normal(key, x.shape, x.dtype))
