"""Matrix products in the dtype of the weights, in layouts that are fast on CPU.

For float32 products, XLA's CPU backend reads both operands in either memory order, so the
transposes in gradients are free. For bfloat16 it only has kernels for plain products and, for
matrices but not for stacks of them, products with a transposed second operand. It computes other
forms in float32, six times slower, and converts every bfloat16 number that it adds to float32. On
the CPU, these transposes are therefore written to memory, and products of bfloat16 operands are
returned in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from medjax.jax_internals import Layout, with_layout_constraint
from medjax.target import target_platform

__all__ = ["Dense", "matmul", "product"]


def matmul(x: jax.Array, y: jax.Array, dtype: Any) -> jax.Array:
    """Return the product of two stacks of matrices; its gradients use the same dtype.

    Reverse-mode differentiation (`jax.grad`, `jax.vjp`) is supported; forward mode (`jax.jvp`) is
    not, as the gradients are defined by `jax.custom_vjp`.

    Parameters
    ----------
    x : jax.Array
        Shape (..., n, k), float.
    y : jax.Array
        Shape (..., k, m), with the same leading axes.
    dtype : dtype
        Type of the factors, also in the gradients; sums are accumulated in float32.

    Returns
    -------
    jax.Array
        Shape (..., n, m); float32 on the CPU, otherwise of type `dtype`.

    Examples
    --------
    >>> matmul(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.float32).shape
    (2, 4)
    """
    config: Any = jax.config  # its attributes are created at run time, so mypy does not know them
    return _matmul(x, y, dtype, config.jax_default_matmul_precision)


# The precision is an argument because gradients are traced outside the context that sets it.
@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _matmul(x: jax.Array, y: jax.Array, dtype: Any, precision: Any) -> jax.Array:
    result = product(x.astype(dtype), y.astype(dtype), precision=precision)
    return result if _on_cpu() else result.astype(dtype)


def _forward(x: jax.Array, y: jax.Array, dtype: Any, precision: Any) -> tuple[jax.Array, Any]:
    # Types cannot be residuals; empty arrays carry them.
    like_x, like_y = jnp.zeros(0, x.dtype), jnp.zeros(0, y.dtype)
    x, y = x.astype(dtype), y.astype(dtype)
    return _matmul(x, y, dtype, precision), (x, y, like_x, like_y)


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
    """Return the product of two matrices, or stacks of matrices, in layouts that are fast on CPU.

    Parameters
    ----------
    x : jax.Array
        Shape (..., n, k).
    y : jax.Array
        Shape (..., k, m) or, if `transposed`, (..., m, k), with the same leading axes and dtype.
    transposed : bool
        Whether to multiply by the transpose of `y`. Pass an array that is stored in the order
        (m, k) with this option instead of transposing it.
    precision
        As for `jax.lax.dot_general`.
    result_dtype : dtype
        Type of the sums and of the result.

    Returns
    -------
    jax.Array
        Shape (..., n, m).

    Examples
    --------
    >>> product(jnp.ones((2, 3)), jnp.ones((4, 3)), transposed=True).shape
    (2, 4)
    """
    is_laid_out = x.dtype == jnp.bfloat16 and _on_cpu()
    is_stack = x.ndim > 2
    if is_laid_out:
        if transposed and is_stack:
            y, transposed = jnp.swapaxes(y, -1, -2), False
        x, y = _row_major(x), _row_major(y)
    last, leading = x.ndim - 1, tuple(range(x.ndim - 2))
    axes = (((last,), (last if transposed else last - 1,)), (leading, leading))
    result = lax.dot_general(x, y, axes, precision, preferred_element_type=result_dtype)
    # Otherwise XLA may turn the transpose of a product into a product of transposes, which XLA's
    # CPU backend has not for stacks of bfloat16 matrices: it raises an error when it runs.
    return _row_major(result) if is_laid_out and is_stack else result


def _row_major(x: jax.Array) -> jax.Array:
    result: jax.Array = with_layout_constraint(x, Layout(tuple(range(x.ndim))))
    return result


def _on_cpu() -> bool:
    return target_platform() == "cpu"


class Dense(nn.Module):
    """A linear layer on the last axis, with the parameters of `flax.linen.Dense`.

    Attributes
    ----------
    features : int
        Size of the result's last axis.
    use_bias : bool
        Whether a bias is added.
    kernel_init : callable
        Initialises the kernel, shape (inputs, features).

    Examples
    --------
    >>> variables = Dense(4).init(jax.random.key(0), jnp.ones((2, 3)))
    >>> Dense(4).apply(variables, jnp.ones((2, 3))).shape
    (2, 4)
    """

    features: int
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return the result, shape (..., features)."""
        size = inputs.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (size, self.features))
        flat = matmul(inputs.reshape(-1, size), kernel, kernel.dtype)
        if self.use_bias:
            flat = flat + self.param("bias", nn.initializers.zeros, (self.features,))
        return flat.reshape(*inputs.shape[:-1], self.features)
