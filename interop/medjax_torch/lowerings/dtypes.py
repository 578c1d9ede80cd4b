"""Conversion of torch's dtypes and numbers to JAX's."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

_DTYPES = {
    torch.bool: jnp.bool_,
    torch.uint8: jnp.uint8,
    torch.int8: jnp.int8,
    torch.int16: jnp.int16,
    torch.int32: jnp.int32,
    torch.int64: jnp.int64,
    torch.float16: jnp.float16,
    torch.bfloat16: jnp.bfloat16,
    torch.float32: jnp.float32,
    torch.float64: jnp.float64,
    torch.complex64: jnp.complex64,
    torch.complex128: jnp.complex128,
}


INT64 = (-(2**63), 2**63 - 1)
"""The limits of int64."""


def jax_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """Return JAX's dtype for torch's; 64-bit types become 32-bit unless `jax_enable_x64` is set.

    Raises
    ------
    ValueError
        If JAX has no corresponding dtype.
    """
    if dtype not in _DTYPES:
        raise ValueError(
            f"Tensors of {dtype} cannot be lowered to JAX. Convert them to one of "
            f"{', '.join(str(known) for known in _DTYPES)} in the component."
        )
    return np.dtype(jax.dtypes.canonicalize_dtype(_DTYPES[dtype]))


def maybe_dtype(dtype: torch.dtype | None) -> np.dtype[Any] | None:
    """Return `jax_dtype(dtype)`, or None for None."""
    return None if dtype is None else jax_dtype(dtype)


def number(value: Any, dtype: np.dtype[Any]) -> jax.Array:
    """Return a number as a scalar array, with the limits of int64 mapped to those of `dtype`.

    Programs use the limits of int64 to mean "none" and "all"; in JAX those of int32 do the same.

    Raises
    ------
    OverflowError
        If any other integer is out of range for `dtype`.
    """
    if isinstance(value, int) and jnp.issubdtype(dtype, jnp.integer):
        limits = jnp.iinfo(dtype)
        if value in INT64:
            value = min(max(value, int(limits.min)), int(limits.max))
        elif not int(limits.min) <= value <= int(limits.max):
            raise OverflowError(f"{value} does not fit the device's {dtype}")
    return jnp.asarray(value, dtype)


def cast(values: jax.Array, dtype: np.dtype[Any]) -> jax.Array:
    """Convert to another dtype; floats that do not fit into 8 or 16 bits wrap, as in torch."""
    narrow = jnp.issubdtype(dtype, jnp.integer) and jnp.iinfo(dtype).bits < 32
    if narrow and jnp.issubdtype(values.dtype, jnp.floating):
        values = values.astype(jnp.int32)
    return values.astype(dtype)


def missing(dtype: np.dtype[Any]) -> Any:
    """Return what stands for the result of an error in torch: NaN, or a limit of an integer dtype.

    As in `jnp.take`, it is the largest unsigned integer, and the least signed one.
    """
    if jnp.issubdtype(dtype, jnp.inexact):
        return jnp.nan
    limits = jnp.iinfo(dtype)
    return limits.min if jnp.issubdtype(dtype, jnp.signedinteger) else limits.max


def integral(values: jax.Array) -> bool:
    """Return whether an array has an integer or boolean dtype."""
    return not jnp.issubdtype(values.dtype, jnp.inexact)
