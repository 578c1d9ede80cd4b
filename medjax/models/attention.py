"""Fused attention by NVIDIA's cuDNN, where it applies."""

from __future__ import annotations

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from medjax.target import target_is_deterministic, target_platform

__all__ = [
    "AttentionImplementation",
    "attend_to_first",
    "check_implementation",
    "cudnn_applies",
    "has_cudnn_attention",
    "real_comes_first",
]

AttentionImplementation = Literal["xla", "cudnn"]
"""What computes attention, named as in `jax.nn.dot_product_attention`."""

_LARGEST_HEAD = 128
"""Largest head size that cuDNN supports on all GPUs; on Hopper and later it is 256."""


def check_implementation(name: Any) -> None:
    """Raise ValueError unless `name` is an `AttentionImplementation`.

    Examples
    --------
    >>> check_implementation("cudnn")
    """
    known = get_args(AttentionImplementation)
    if name not in known:
        expected = " or ".join(map(repr, known))
        raise ValueError(f"attention_implementation is {name!r}; expected {expected}")


def cudnn_applies(query: jax.Array) -> bool:
    """Return whether cuDNN's fused attention supports such arrays on the devices of this process.

    It needs bfloat16 or float16, a head size that is a multiple of 8 and at most 128, and an NVIDIA
    GPU of compute capability 8.0 or later. For anything else `jax.nn.dot_product_attention` raises
    an error.

    Parameters
    ----------
    query : jax.Array
        Shape (rows, length, heads, head size); keys and values have the same head size and dtype.

    Raises
    ------
    ValueError
        If it does, but is traced for a program that has to compute the same bits in every run.

    Examples
    --------
    >>> cudnn_applies(jnp.zeros((2, 16, 4, 32), jnp.float32))
    False
    """
    size = query.shape[-1]
    applies = (
        query.dtype in (jnp.bfloat16, jnp.float16)
        and size % 8 == 0
        and size <= _LARGEST_HEAD
        and has_cudnn_attention()
    )
    if applies and target_is_deterministic():
        raise ValueError(
            "attention_implementation is 'cudnn' with Options(deterministic=True); XLA compiles "
            "cuDNN's attention only with Options(deterministic=False), with which a resumed run "
            "is equal up to rounding. Set it, or use attention_implementation='xla'"
        )
    return applies


def has_cudnn_attention() -> bool:
    """Return whether cuDNN's fused attention can run where a program is traced for."""
    if target_platform() != "gpu":
        return False
    try:
        return float(getattr(jax.local_devices()[0], "compute_capability", 0)) >= 8.0
    except ValueError:  # AMD devices have the name of an architecture instead
        return False


def attend_to_first(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    real: jax.Array,
    *,
    scale: float | None = None,
) -> jax.Array:
    """Compute attention to the first, real tokens of each row with cuDNN.

    Parameters
    ----------
    query : jax.Array
        Shape (rows, length, heads, head size), for which `cudnn_applies`.
    key, value : jax.Array
        Shape (rows, number of tokens, heads, head size), of the same dtype.
    real : jax.Array
        Whether a token is real, bool, shape (rows, number of tokens).
    scale : float, optional
        Factor of the scores; by default 1 / sqrt(head size).

    Returns
    -------
    jax.Array
        Shape and dtype of `query`. Rows in which padding precedes a real token are NaN, so that
        they cannot be mistaken for correct; a row without real tokens attends to its first token.
    """
    attended = jax.nn.dot_product_attention(
        query,
        key,
        value,
        scale=scale,
        # Cheaper than a bias: none is read, and no gradient of one is computed.
        key_value_seq_lengths=jnp.maximum(real.sum(1, dtype=jnp.int32), 1),
        implementation="cudnn",
    )
    return jnp.where(real_comes_first(real)[:, None, None, None], attended, jnp.nan)


def real_comes_first(real: jax.Array) -> jax.Array:
    """Return for each row whether no padding precedes a real token.

    Parameters
    ----------
    real : jax.Array
        Whether a token is real, bool, shape (rows, length).

    Returns
    -------
    jax.Array
        Bool, shape (rows,).

    Examples
    --------
    >>> real_comes_first(jnp.array([[True, False], [False, True]])).tolist()
    [True, False]
    """
    return (real[:, 1:] <= real[:, :-1]).all(1)
