"""Matrix products in the arithmetic of their weights, and in the layout the CPU is fast in.

XLA's CPU backend multiplies row-major matrices by vectorised kernels, but computes a product with
a transposed operand, which both gradients of a product are, several times slower, and widens every
bfloat16 number it adds. So on the CPU transposes are written out first, and what a product of
bfloat16 operands gives stays float32. A training step of MiniLM (16 rows of 64 tokens, two cores
with avx512_bf16) takes a fifth less time in float32, and half of that in bfloat16.
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
    product = _product(x.astype(dtype), y.astype(dtype), precision)
    return product if _on_cpu() else product.astype(dtype)


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
    last, before = x.ndim - 1, x.ndim - 2
    to_x = _product(gradient, y, precision, (last, last))
    if dtype == jnp.float32 or not _on_cpu():
        to_y = _product(x, gradient, precision, (before, before))
    else:
        to_y = _product(row_major(jnp.swapaxes(x, -1, -2)), gradient, precision)
    return to_x.astype(like_x.dtype), to_y.astype(like_y.dtype)


_matmul.defvjp(_forward, _backward)


def _product(
    x: jax.Array, y: jax.Array, precision: Any, axes: tuple[int, int] | None = None
) -> jax.Array:
    """Sum over one axis of each, by default the last of `x` and the last but one of `y`."""
    over_x, over_y = (x.ndim - 1, y.ndim - 2) if axes is None else axes
    leading = tuple(range(x.ndim - 2))
    dimensions = (((over_x,), (over_y,)), (leading, leading))
    return lax.dot_general(x, y, dimensions, precision, preferred_element_type=jnp.float32)


def row_major(x: jax.Array) -> jax.Array:
    """Return an array of any shape that is written out in its own order, on the CPU."""
    return with_layout_constraint(x, Layout(tuple(range(x.ndim)))) if _on_cpu() else x


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
