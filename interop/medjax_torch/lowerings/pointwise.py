"""Operators that work element by element: arithmetic, comparison, elementary functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax.models.activations import gelu
from medjax_torch.lowerings.dtypes import cast, integral, jax_dtype, number
from medjax_torch.lowerings.table import lowers, lowers_each

aten = torch.ops.aten
prims = torch.ops.prims

lowers_each(
    {
        aten.abs.default: jnp.abs,
        aten.acos.default: jnp.arccos,
        aten.acosh.default: jnp.arccosh,
        aten.asin.default: jnp.arcsin,
        aten.asinh.default: jnp.arcsinh,
        aten.atan.default: jnp.arctan,
        aten.atanh.default: jnp.arctanh,
        aten.bitwise_not.default: jnp.bitwise_not,
        aten.ceil.default: jnp.ceil,
        aten.conj_physical.default: jnp.conj,
        aten.cos.default: jnp.cos,
        aten.cosh.default: jnp.cosh,
        aten.digamma.default: jax.scipy.special.digamma,
        aten.erf.default: jax.scipy.special.erf,
        aten.erfc.default: jax.scipy.special.erfc,
        aten.erfinv.default: jax.scipy.special.erfinv,
        aten.exp.default: jnp.exp,
        aten.exp2.default: jnp.exp2,
        aten.expm1.default: jnp.expm1,
        aten.floor.default: jnp.floor,
        aten.isinf.default: jnp.isinf,
        aten.isnan.default: jnp.isnan,
        aten.lgamma.default: jax.scipy.special.gammaln,
        aten.log.default: jnp.log,
        aten.log10.default: jnp.log10,
        aten.log1p.default: jnp.log1p,
        aten.log2.default: jnp.log2,
        aten.logical_not.default: jnp.logical_not,
        aten.neg.default: jnp.negative,
        aten.round.default: jnp.round,
        aten.round.decimals: jnp.round,
        aten.sin.default: jnp.sin,
        aten.sinh.default: jnp.sinh,
        aten.sqrt.default: jnp.sqrt,
        aten.tan.default: jnp.tan,
        aten.tanh.default: jnp.tanh,
        aten.trunc.default: jnp.trunc,
        aten.atan2.default: jnp.arctan2,
        aten.bitwise_and.Scalar: jnp.bitwise_and,
        aten.bitwise_and.Tensor: jnp.bitwise_and,
        aten.bitwise_or.Scalar: jnp.bitwise_or,
        aten.bitwise_or.Tensor: jnp.bitwise_or,
        aten.bitwise_xor.Scalar: jnp.bitwise_xor,
        aten.bitwise_xor.Tensor: jnp.bitwise_xor,
        aten.eq.Scalar: jnp.equal,
        aten.eq.Tensor: jnp.equal,
        aten.ge.Scalar: jnp.greater_equal,
        aten.ge.Tensor: jnp.greater_equal,
        aten.gt.Scalar: jnp.greater,
        aten.gt.Tensor: jnp.greater,
        aten.le.Scalar: jnp.less_equal,
        aten.le.Tensor: jnp.less_equal,
        aten.logical_and.default: jnp.logical_and,
        aten.logical_or.default: jnp.logical_or,
        aten.logical_xor.default: jnp.logical_xor,
        aten.lt.Scalar: jnp.less,
        aten.lt.Tensor: jnp.less,
        aten.maximum.default: jnp.maximum,
        aten.minimum.default: jnp.minimum,
        aten.mul.Scalar: jnp.multiply,
        aten.mul.Tensor: jnp.multiply,
        aten.ne.Scalar: jnp.not_equal,
        aten.ne.Tensor: jnp.not_equal,
        aten.where.self: jnp.where,
        # Complex numbers.
        aten.angle.default: jnp.angle,
        aten.complex.default: lax.complex,
        aten.imag.default: jnp.imag,
        aten.real.default: jnp.real,
    }
)


@lowers(aten.reciprocal.default)
def _reciprocal(x: jax.Array) -> jax.Array:
    return 1 / x


@lowers(aten.rsqrt.default)
def _rsqrt(x: jax.Array) -> jax.Array:
    return lax.rsqrt(x.astype(jnp.float32) if integral(x) else x)


@lowers(aten.sigmoid.default)
def _sigmoid(x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(x.astype(jnp.float32) if integral(x) else x)


@lowers(aten.relu.default)
def _relu(x: jax.Array) -> jax.Array:
    return jnp.maximum(x, 0)


@lowers(aten.sign.default)
def _sign(x: jax.Array) -> jax.Array:
    # In torch the sign of NaN is 0.
    return x if x.dtype == jnp.bool_ else jnp.where(jnp.isnan(x), 0, jnp.sign(x))


@lowers(aten.add.Tensor, aten.add.Scalar)
def _add(x: Any, y: Any, alpha: Any = 1) -> jax.Array:
    return jnp.add(x, y if _is_one(alpha) else y * alpha)


@lowers(aten.sub.Tensor, aten.sub.Scalar)
def _sub(x: Any, y: Any, alpha: Any = 1) -> jax.Array:
    return jnp.subtract(x, y if _is_one(alpha) else y * alpha)


def _is_one(value: Any) -> bool:
    return isinstance(value, int | float) and value == 1


@lowers(aten.pow.Tensor_Tensor, aten.pow.Tensor_Scalar, aten.pow.Scalar)
def _pow(base: Any, exponent: Any) -> jax.Array:
    # Small integer exponents are multiplied out, as in torch; large ones are inexact either way.
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 8:
        return lax.integer_pow(jnp.asarray(base, jnp.result_type(base, exponent)), int(exponent))
    if isinstance(exponent, float) and exponent == 0.5:
        return jnp.sqrt(base)
    return jnp.power(base, exponent)


@lowers(aten.lerp.Scalar, aten.lerp.Tensor)
def _lerp(start: jax.Array, end: jax.Array, weight: Any) -> jax.Array:
    result: jax.Array = start + weight * (end - start)
    return result


@lowers(aten.addcmul.default)
def _addcmul(x: jax.Array, y: jax.Array, z: jax.Array, value: Any = 1) -> jax.Array:
    result: jax.Array = x + value * y * z
    return result


@lowers(aten.addcdiv.default)
def _addcdiv(x: jax.Array, y: jax.Array, z: jax.Array, value: Any = 1) -> jax.Array:
    result: jax.Array = x + value * (y / z)
    return result


@lowers(aten.clamp.default, aten.clamp.Tensor)
def _clamp(x: jax.Array, low: Any = None, high: Any = None) -> jax.Array:
    if low is not None:
        x = jnp.maximum(x, low)
    return x if high is None else jnp.minimum(x, high)


@lowers(aten.clamp_min.default)
def _clamp_min(x: jax.Array, low: Any) -> jax.Array:
    return jnp.maximum(x, low)


@lowers(aten.clamp_max.default)
def _clamp_max(x: jax.Array, high: Any) -> jax.Array:
    return jnp.minimum(x, high)


@lowers(aten.masked_fill.Scalar, aten.masked_fill.Tensor)
def _masked_fill(x: jax.Array, mask: jax.Array, value: Any) -> jax.Array:
    return jnp.where(mask, number(value, x.dtype), x)


@lowers(aten._to_copy.default)
def _to_copy(x: jax.Array, dtype: torch.dtype | None = None, **placement: Any) -> jax.Array:
    return x if dtype is None else _cast(x, dtype)


@lowers(prims.convert_element_type.default)
def _cast(x: jax.Array, dtype: torch.dtype) -> jax.Array:
    target = jax_dtype(dtype)
    if jnp.issubdtype(x.dtype, jnp.complexfloating) and not jnp.issubdtype(
        target, jnp.complexfloating
    ):
        x = x.real
    return cast(x, target)


@lowers(aten.hardtanh.default)
def _hardtanh(x: jax.Array, low: float = -1.0, high: float = 1.0) -> jax.Array:
    return jnp.clip(x, low, high)


@lowers(aten.gelu.default)
def _gelu(x: jax.Array, approximate: str = "none") -> jax.Array:
    return jax.nn.gelu(x, approximate=True) if approximate == "tanh" else gelu(x)


@lowers(aten.leaky_relu.default)
def _leaky_relu(x: jax.Array, slope: float = 0.01) -> jax.Array:
    return jnp.where(x > 0, x, x * slope)


@lowers(aten.elu.default)
def _elu(x: jax.Array, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> jax.Array:
    below = jnp.expm1(jnp.minimum(x, 0) * input_scale) * alpha
    return scale * jnp.where(x > 0, x, below)


@lowers(aten.hardshrink_backward.default, aten.softshrink_backward.default)
def _shrink_backward(gradient: jax.Array, x: jax.Array, threshold: float) -> jax.Array:
    return jnp.where((x >= -threshold) & (x <= threshold), 0, gradient)
