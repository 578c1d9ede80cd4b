"""Matrix products in the arithmetic of their weights, and in the layout the CPU is fast in.

XLA's CPU backend reads both operands of a float32 product in either order, so the transposes that
gradients are made of are free. Of bfloat16 it has kernels for a plain product and, of matrices but
not of stacks, for a transposed second operand; any other form it computes in float32, six times
slower, and it widens every bfloat16 number it adds. So on the CPU those transposes are written
out, and what a product of bfloat16 operands gives stays float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint


def matmul(x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    """Return the product of two stacks of matrices, and know its gradients.

    Parameters
    ----------
    x : jax.Array
        Shape (..., n, k), float.
    y : jax.Array
        Shape (..., k, m), of the same leading axes.
    dtype : dtype
        Type in which numbers are multiplied, also for the gradients; they are added in float32.

    Returns
    -------
    jax.Array
        Shape (..., n, m); float32 on the CPU, else of `dtype`.
    """
    config: Any = jax.config  # which lists none of its attributes
    return _matmul(x, y, dtype, config.jax_default_matmul_precision)


# The precision is an argument because gradients are traced outside of the context that sets it.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(x: jax.Array, y: jax.Array, dtype: Any, precision: Any) -> jax.Array:
    result = product(x.astype(dtype), y.astype(dtype), precision=precision)
    return result if _on_cpu() else result.astype(dtype)


def _forward(x: jax.Array, y: jax.Array, dtype: Any, precision: Any) -> tuple[jax.Array, Any]:
    # Arrays without elements stand for the types, which cannot be residuals.
    types = jnp.zeros(0, x.dtype), jnp.zeros(0, y.dtype)
    lowered = x.astype(dtype), y.astype(dtype)
    return _matmul(*lowered, dtype, precision), (*lowered, *types)


def _backward(
    dtype: Any, precision: Any, residuals: Any, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, y, like_x, like_y = residuals
    gradient = gradient.astype(dtype)
    to_x = product(gradient, y, transposed=True, precision=precision)
    to_y = product(jnp.swapaxes(x, -1, -2), gradient, precision=precision)
    return to_x.astype(like_x.dtype), to_y.astype(like_y.dtype)


_matmul.defvjp(_forward, _backward)


def product(
    x: jax.Array,
    y: jax.Array,
    *,
    transposed: bool = False,
    precision: Any = None,
    result_dtype: Any = jnp.float32,
) -> jax.Array:
    """Return the product of two matrices, or stacks of them, in the layout the CPU is fast in.

    Parameters
    ----------
    x : jax.Array
        Shape (..., n, k).
    y : jax.Array
        Shape (..., k, m) or, if `transposed`, (..., m, k), of the same leading axes and dtype.
    transposed : bool
        Whether `y` is to be transposed; where a transpose is already made, undo it and say so.
    precision
        As for `jax.lax.dot_general`.
    result_dtype : dtype
        Type of the sums and of the result.

    Returns
    -------
    jax.Array
        Shape (..., n, m).
    """
    if x.dtype == jnp.bfloat16 and _on_cpu():
        if transposed and x.ndim > 2:
            y, transposed = jnp.swapaxes(y, -1, -2), False
        x, y = _written_out(x), _written_out(y)
    last, leading = x.ndim - 1, tuple(range(x.ndim - 2))
    axes = (((last,), (last if transposed else last - 1,)), (leading, leading))
    return lax.dot_general(x, y, axes, precision, preferred_element_type=result_dtype)


def _written_out(x: jax.Array) -> jax.Array:
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


class Dense(nn.Module):
    """A linear layer on the last axis; parameters as those of `flax.linen.Dense`.

    Attributes
    ----------
    features : int
        Size of the result's last axis.
    kernel_init : callable
        Initialises the kernel, shape (inputs, features).
    """

    features: int
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the result, shape (..., features)."""
        size = inputs.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (size, self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        flat = matmul(inputs.reshape(-1, size), kernel, kernel.dtype)
        return (flat + bias).reshape(*inputs.shape[:-1], self.features)
