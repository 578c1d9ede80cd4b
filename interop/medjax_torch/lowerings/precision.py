"""The type in which matrices are multiplied, where most of the time goes."""

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

    Sums stay float32, and so does everything else.

    Parameters
    ----------
    dtype : dtype or None
        bfloat16, or None to leave operands as they are.
    """
    token = _multiplying_in.set(dtype)
    try:
        yield
    finally:
        _multiplying_in.reset(token)


def rounded(operand: jax.Array) -> jax.Array:
    """Return an operand of a product in the type it is multiplied in."""
    dtype = _multiplying_in.get()
    return operand if dtype is None or operand.dtype != jnp.float32 else operand.astype(dtype)


def operands(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return both operands of a product in the type they are multiplied in."""
    return rounded(x), rounded(y)


def matmul(x: jax.Array, y: jax.Array, *, transposed: bool) -> jax.Array:
    """Return the product of two matrices or batches of them, in the type of `x`.

    Parameters
    ----------
    x, y : jax.Array
        Shapes (..., n, k) and (..., k, m).
    transposed : bool
        Whether `y` was made by swapping its last two axes: then it is read as it was before.
    """
    x, y = operands(x, y.mT if transposed else y)
    result_dtype = jnp.float32 if x.dtype == jnp.bfloat16 else x.dtype
    return product(x, y, transposed=transposed, result_dtype=result_dtype)
