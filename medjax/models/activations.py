"""Activation functions by the names that configurations have for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from jax import lax

__all__ = ["ACTIVATIONS", "gelu"]


def gelu(x: jax.Array) -> jax.Array:
    """Return the Gaussian error linear unit of x, computed with erf as torch does.

    The formula is ``x * (1 + erf(x / sqrt(2))) / 2`` (Hendrycks and Gimpel 2016). `jax.nn.gelu`
    uses erfc, which is more accurate where the result is almost zero, but needs one more
    exponential per element.

    Parameters
    ----------
    x : jax.Array
        float, any shape.

    Examples
    --------
    >>> round(float(gelu(jax.numpy.float32(1.0))), 4)
    0.8413
    """
    return 0.5 * x * (1.0 + lax.erf(x * np.sqrt(0.5).astype(x.dtype)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "tanh": jax.numpy.tanh,
}
"""The activation functions by name."""
