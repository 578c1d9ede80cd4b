"""What the encoders of all families are built from."""

from __future__ import annotations

from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.attention import (
    AttentionImplementation,
    attend_to_first,
    check_implementation,
    cudnn_applies,
)
from medjax.models.config import EncoderConfig
from medjax.models.dropout import Dropout, DropoutKey, dropped
from medjax.models.products import Dense, matmul

__all__ = [
    "HeadFactory",
    "attend",
    "attend_nearby",
    "attention_bias",
    "check_input",
    "dense",
    "embed",
    "layer_norm",
    "normal",
]


_LONG = 512  # tokens; longer rows are attended to in blocks of so many queries
_SMALLEST_BLOCK = 32  # tokens; the products of smaller blocks are slow


class HeadFactory(Protocol):
    """Makes what stands between an encoder and its classifier.

    The module that it returns takes the hidden states of a batch, shape (rows, length,
    hidden_size), and its mask, shape (rows, length), and returns the features that are classified.
    """

    def __call__(self, config: Any, *, name: str) -> nn.Module:
        """Return the module."""


def normal(config: EncoderConfig) -> Any:
    """Return the initialiser of kernels and embeddings."""
    return nn.initializers.normal(config.initializer_range)


def dense(config: EncoderConfig, features: int, name: str, *, use_bias: bool = True) -> Dense:
    """Return a dense layer that multiplies in the dtype of its kernel."""
    return Dense(features, use_bias=use_bias, kernel_init=normal(config), name=name)


def embed(config: EncoderConfig, rows: int, features: int, name: str) -> nn.Embed:
    """Return a table with a vector for each of `rows` numbers."""
    return nn.Embed(rows, features, embedding_init=normal(config), name=name)


def layer_norm(epsilon: float, name: str, *, use_bias: bool = True) -> nn.LayerNorm:
    """Return a LayerNorm whose statistics are computed in float32."""
    # The fast variance, E[x^2] - E[x]^2, cancels badly when the mean is large.
    return nn.LayerNorm(epsilon=epsilon, use_bias=use_bias, use_fast_variance=False, name=name)


def check_input(
    config: EncoderConfig,
    input_ids: jax.Array,
    token_type_ids: jax.Array | None,
    attention_implementation: AttentionImplementation,
) -> None:
    """Raise ValueError if an encoder cannot read a batch.

    Parameters
    ----------
    config : EncoderConfig
        The encoder's configuration.
    input_ids, token_type_ids : jax.Array
        As for `make_encoder`.
    attention_implementation : {"xla", "cudnn"}
        What computes attention.
    """
    check_implementation(attention_implementation)
    if input_ids.shape[1] > config.max_length:
        msg = (
            f"found rows of {input_ids.shape[1]} tokens; this {config.model_type} model takes at "
            f"most {config.max_length}: split or truncate the texts"
        )
        raise ValueError(msg)
    if token_type_ids is not None and not config.has_token_types:
        msg = f"{config.model_type} has no token types; call it without token_type_ids"
        raise ValueError(msg)


def attention_bias(attention_mask: jax.Array) -> jax.Array:
    """Return the bias that a mask of tokens adds to attention scores.

    The bias of padding is the most negative float32 rather than minus infinity, so that a row
    without any real token stays finite: its tokens attend equally to all. In other rows, the
    probabilities of padding are exactly zero.

    Parameters
    ----------
    attention_mask : jax.Array
        Nonzero for real tokens, zero for padding, shape (rows, length).

    Returns
    -------
    jax.Array
        float32 of shape (rows, 1, 1, length), to broadcast over heads and queries.
    """
    bias = jnp.where(attention_mask != 0, 0.0, jnp.finfo(jnp.float32).min)
    return bias.astype(jnp.float32)[:, None, None, :]


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array,
    *,
    rate: float,
    dtype: Any,
    implementation: AttentionImplementation,
) -> jax.Array:
    """Return the attended values of each head.

    Parameters
    ----------
    query, key, value : jax.Array
        Shape (rows, length, heads, head size).
    bias : jax.Array
        From `attention_bias`.
    rate : float
        Probability of dropping an attention probability, with the random stream ``"dropout"``.
    dtype : dtype
        Type in which scores and values are computed.
    implementation : {"xla", "cudnn"}
        See `make_encoder`.

    Returns
    -------
    jax.Array
        Shape of `query`.
    """
    if implementation == "cudnn" and rate == 0:
        cast = query.astype(dtype), key.astype(dtype), value.astype(dtype)
        if cudnn_applies(cast[0]):
            return attend_to_first(*cast, real=bias[:, 0, 0] == 0)
    # With heads before length, the batched products are contiguous, which is faster on CPU.
    query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
    function = _attend if _has_at_most(_LONG, query.shape[2]) else _attend_in_blocks
    return function(query, key, value, bias, rate, dtype).transpose(0, 2, 1, 3)


def _has_at_most(limit: int, length: Any) -> bool:
    """Return whether rows are known to be so short; the length of an export may be a symbol."""
    try:
        return bool(length <= limit)
    except jax.errors.InconclusiveDimensionOperation:
        return False


def _attend_in_blocks(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, rate: float, dtype: Any
) -> jax.Array:
    """Attend block by block of queries, and again in the backward pass, which keeps no scores.

    So memory is proportional to the length, and not to its square.
    """
    rows, heads, length, size = query.shape
    nb_blocks = -(-length // _LONG)
    fill = ((0, 0), (0, 0), (0, nb_blocks * _LONG - length), (0, 0))
    blocks = jnp.pad(query * size**-0.5, fill).reshape(rows, heads, nb_blocks, _LONG, size)
    random = DropoutKey()() if rate > 0 else None

    @jax.checkpoint
    def attended(numbered: tuple[jax.Array, jax.Array]) -> jax.Array:
        number, queries = numbered
        weights = _weights(queries, key, bias, dtype).astype(value.dtype)
        if random is not None:
            weights = dropped(weights, rate, jax.random.fold_in(random, number))
        return matmul(weights, value, dtype)

    result = jax.lax.map(attended, (jnp.arange(nb_blocks), jnp.moveaxis(blocks, 2, 0)))
    return jnp.moveaxis(result, 0, 2).reshape(rows, heads, -1, size)[:, :, :length]


def _weights(query: jax.Array, key: jax.Array, bias: jax.Array, dtype: Any) -> jax.Array:
    scores = matmul(query, jnp.swapaxes(key, -1, -2), dtype)
    return jax.nn.softmax(scores + bias, axis=-1)


def _attend(
    query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, rate: float, dtype: Any
) -> jax.Array:
    """Attend with arrays of shape (..., length, head size)."""
    query = query * query.shape[-1] ** -0.5
    weights = _weights(query, key, bias, dtype).astype(value.dtype)
    weights = Dropout(rate)(weights, deterministic=rate == 0)
    return matmul(weights, value, dtype)


def attend_nearby(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array,
    *,
    reach: int,
    rate: float,
    dtype: Any,
) -> jax.Array:
    """Return the attended values of each head, where tokens attend to those nearby.

    The row is cut into blocks, and the tokens of a block attend to three blocks, those beside it
    and itself. So time and memory are proportional to the length.

    Parameters
    ----------
    query, key, value, bias, rate, dtype
        As for `attend`.
    reach : int
        Largest distance of tokens that attend to each other.

    Returns
    -------
    jax.Array
        Shape of `query`.
    """
    length, block = query.shape[1], max(reach, _SMALLEST_BLOCK)
    if _has_at_most(3 * block, length):
        positions = jnp.arange(length)
        far = jnp.abs(positions[:, None] - positions) > reach
        near = jnp.where(far, jnp.finfo(jnp.float32).min, bias)
        query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
        return _attend(query, key, value, near, rate, dtype).transpose(0, 2, 1, 3)
    nb_blocks = -(-length // block)
    fill = nb_blocks * block - length

    def blocks(array: jax.Array, beside: int) -> jax.Array:
        """Cut an array of shape (rows, heads, length, n), with blocks of zeros at both ends."""
        padded = jnp.pad(array, ((0, 0), (0, 0), (beside * block, beside * block + fill), (0, 0)))
        return padded.reshape(*array.shape[:2], nb_blocks + 2 * beside, block, array.shape[-1])

    def three(array: jax.Array) -> jax.Array:
        """Return each block with those beside it, shape (rows, heads, blocks, 3 x block, n)."""
        cut = blocks(array, 1)
        return jnp.concatenate((cut[:, :, :-2], cut[:, :, 1:-1], cut[:, :, 2:]), axis=3)

    query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
    distance = np.subtract.outer(np.arange(block) + block, np.arange(3 * block))
    real = three((bias == 0).astype(jnp.int8).transpose(0, 1, 3, 2))[..., 0] != 0
    seen = real[:, :, :, None, :] & (np.abs(distance) <= reach)
    near = jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min)
    attended = _attend(blocks(query, 0), three(key), three(value), near, rate, dtype)
    attended = attended.reshape(*query.shape[:2], nb_blocks * block, -1)[:, :, :length]
    return attended.transpose(0, 2, 1, 3)
