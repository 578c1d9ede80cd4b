"""Attention in one call of a library: NVIDIA's cuDNN, where it applies."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

AttentionImplementation = Literal["xla", "cudnn"]
"""Who computes attention, named as in `jax.nn.dot_product_attention`."""

_LARGEST_HEAD = 128
"""Of cuDNN's on any GPU that has it; Hopper and later take 256."""


def check_implementation(name: Any) -> None:
    """Raise ValueError unless `name` is an `AttentionImplementation`."""
    known = get_args(AttentionImplementation)
    if name not in known:
        expected = " or ".join(map(repr, known))
        raise ValueError(f"attention_implementation is {name!r}; expected {expected}")


def cudnn_applies(query: jax.Array) -> bool:
    """Tell whether cuDNN's fused attention takes such arrays on the devices of this process.

    It takes bfloat16 and float16, heads of a multiple of 8 numbers up to 128, and NVIDIA GPUs of
    compute capability 8.0 and later; the rest is an error of `jax.nn.dot_product_attention`.

    Parameters
    ----------
    query : jax.Array
        Shape (rows, length, heads, head size); keys and values have the same head size and dtype.
    """
    size = query.shape[-1]
    return (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and size % 8 == 0
        and size <= _LARGEST_HEAD
        and has_cudnn_attention()
    )


def has_cudnn_attention() -> bool:
    """Tell whether the first device is one that cuDNN's fused attention runs on at all."""
    try:
        return float(getattr(jax.local_devices()[0], "compute_capability", 0)) >= 8.0
    except ValueError:  # AMD's devices name an architecture
        return False


def attend_to_first(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    real: jax.Array,
    *,
    scale: float | None = None,
) -> jax.Array:
    """Attend to the real tokens of each row, which come first in it, by cuDNN.

    Parameters
    ----------
    query : jax.Array
        Shape (rows, length, heads, head size), of a dtype that `cudnn_applies` to.
    key, value : jax.Array
        Shape (rows, number of tokens, heads, head size), of the same dtype.
    real : jax.Array
        Whether a token is real, bool, shape (rows, number of tokens).
    scale : float, optional
        What scores are multiplied by; one over the root of the head size by default.

    Returns
    -------
    jax.Array
        Shape and dtype of `query`. NaN in rows where padding precedes a real token, so that they
        do not pass for right; a row without a real token attends to its first.
    """
    attended = jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=scale,
        # How many tokens count is told cheaper than which: no bias is read, and none derived.
        key_value_seq_lengths=jnp.maximum(real.sum(1, dtype=jnp.int32), 1),
        implementation="cudnn",
    )
    return jnp.where(real_comes_first(real)[:, None, None, None], attended, jnp.nan)


def real_comes_first(real: jax.Array) -> jax.Array:
    """Tell of each row whether no padding precedes a real token.

    Parameters
    ----------
    real : jax.Array
        Whether a token is real, bool, shape (rows, length).

    Returns
    -------
    jax.Array
        Bool, shape (rows,).
    """
    return (real[:, 1:] <= real[:, :-1]).all(1)
