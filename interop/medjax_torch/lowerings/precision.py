"""The dtype in which matrices are multiplied, where most of the computing time is spent."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from medjax.models.products import product

_multiplying_in: ContextVar[Any] = ContextVar("multiplying_in", default=None)


@contextlib.contextmanager
def multiplying_in(dtype: Any) -> Iterator[None]:
    """Round float32 operands of products and convolutions to `dtype` while a graph is lowered.

    Accumulation and everything else stay in float32.

    Parameters
    ----------
    dtype : dtype or None
        bfloat16, or None to leave operands unchanged.
    """
    token = _multiplying_in.set(dtype)
    try:
        yield
    finally:
        _multiplying_in.reset(token)


def rounded(operand: jax.Array) -> jax.Array:
    """Cast an operand of a product to the dtype in which it is multiplied."""
    dtype = _multiplying_in.get()
    return operand if dtype is None or operand.dtype != jnp.float32 else operand.astype(dtype)


def operands(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cast both operands of a product to the dtype in which they are multiplied."""
    return rounded(x), rounded(y)


def matmul(x: jax.Array, y: jax.Array, *, transposed: bool) -> jax.Array:
    """Multiply two matrices, or batches of them; the result has the dtype of `x`.

    Parameters
    ----------
    x, y : jax.Array
        Shapes (..., n, k) and (..., k, m).
    transposed : bool
        Whether `y` was created by swapping its last two axes; it is then read unswapped.
    """
    x, y = operands(x, y.mT if transposed else y)
    result_dtype = jnp.float32 if x.dtype == jnp.bfloat16 else x.dtype
    return product(x, y, transposed=transposed, result_dtype=result_dtype)
