"""Quotients and remainders.

An integer divided by 0 is an error in torch. JAX cannot raise inside a compiled step; the result is
a limit of the dtype instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jax import lax

from medjax_torch.lowerings.dtypes import integral, missing
from medjax_torch.lowerings.table import lowers

aten = torch.ops.aten
prims = torch.ops.prims


@lowers(aten.div.Tensor, aten.div.Scalar, aten.div.Tensor_mode, aten.div.Scalar_mode)
def _div(x: Any, y: Any, rounding_mode: str | None = None) -> jax.Array:
    if rounding_mode is None:
        return jnp.true_divide(x, y)
    return _divided(_floored if rounding_mode == "floor" else _truncated, x, y)


@lowers(prims.div.default)
def _prims_div(x: Any, y: Any) -> jax.Array:
    """Divide as C does: integers are truncated."""
    return _divided(lax.div, x, y)


@lowers(aten.remainder.Scalar, aten.remainder.Tensor)
def _remainder(x: Any, y: Any) -> jax.Array:
    return _divided(jnp.remainder, x, y)


@lowers(aten.fmod.Scalar, aten.fmod.Tensor)
def _fmod(x: Any, y: Any) -> jax.Array:
    return _divided(jnp.fmod, x, y)


def _divided(divide: Callable[..., jax.Array], x: Any, y: Any) -> jax.Array:
    """Call `divide` on numbers of one dtype and shape; an integer by 0 gives `missing`."""
    dtype = jnp.result_type(x, y)
    x, y = jnp.broadcast_arrays(jnp.asarray(x, dtype), jnp.asarray(y, dtype))
    result = divide(x, y)
    return jnp.where(y == 0, missing(result.dtype), result) if integral(result) else result


def _floored(x: jax.Array, y: jax.Array) -> jax.Array:
    result = jnp.floor_divide(x, y)
    # jnp's quotient of a float and 0 is NaN, torch's is infinite.
    return result if integral(result) else jnp.where(y == 0, x / y, result)


def _truncated(x: jax.Array, y: jax.Array) -> jax.Array:
    return lax.div(x, y) if integral(x) else jnp.trunc(x / y)
