"""A Flax encoder of the BERT family: BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT.

The families differ in little: how positions are numbered, whether there are token types, and one
dropout. `EncoderConfig` answers those questions, so there is a single set of modules.

Matrices are multiplied in the dtype of the parameters, so bfloat16 compute is a matter of handing
in bfloat16 parameters. What is between the products has their dtype on accelerators and is float32
on the CPU; softmax and the statistics of LayerNorm are float32 in any case.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.activations import gelu
from medjax.models.attention import (
    AttentionImplementation,
    attend_to_first,
    check_implementation,
    cudnn_applies,
)
from medjax.models.config import ROBERTA_TYPES, EncoderConfig
from medjax.models.dropout import Dropout
from medjax.models.products import Dense, matmul

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""The functions behind `hidden_act`."""


def _dense(config: EncoderConfig, features: int, name: str) -> Dense:
    kernel_init = nn.initializers.normal(config.initializer_range)
    return Dense(features, kernel_init=kernel_init, name=name)


def _embed(config: EncoderConfig, rows: int, name: str) -> nn.Embed:
    embedding_init = nn.initializers.normal(config.initializer_range)
    return nn.Embed(rows, config.hidden_size, embedding_init=embedding_init, name=name)


def _layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, cancels badly when the mean is large.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, name=name)


def position_ids(config: EncoderConfig, input_ids: jax.Array) -> jax.Array:
    """Return the positions of the tokens as the pretrained position table expects.

    BERT and DistilBERT count from 0. The RoBERTa family counts the tokens that are not padding
    from `pad_token_id + 1` and gives padding the position `pad_token_id`
    (`create_position_ids_from_input_ids` in transformers).

    Parameters
    ----------
    config : EncoderConfig
        The encoder's configuration.
    input_ids : jax.Array
        Tokens, shape (rows, length), integer.

    Returns
    -------
    jax.Array
        Rows of the position table, int32, shape (rows, length), or (1, length) where all rows
        are numbered alike.
    """
    if config.model_type not in ROBERTA_TYPES:
        return jnp.arange(input_ids.shape[1], dtype=jnp.int32)[None]
    real = (input_ids != config.pad_token_id).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + config.pad_token_id


def attention_bias(attention_mask: jax.Array) -> jax.Array:
    """Turn a mask of tokens into what is added to attention scores.

    The most negative float32 instead of minus infinity keeps a row without a single real token
    finite: its tokens attend evenly to all. Elsewhere masked probabilities are exactly zero.

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


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array | None, *, deterministic: bool
    ) -> jax.Array:
        """Return embeddings of shape (rows, length, hidden_size)."""
        config = self.config
        hidden = _embed(config, config.vocab_size, "word_embeddings")(input_ids)
        positions = position_ids(config, input_ids)
        table = _embed(config, config.max_position_embeddings, "position_embeddings")
        hidden = hidden + table(positions)
        if config.type_vocab_size > 0:
            if token_type_ids is None:
                # One looked-up row, broadcast: its gradient is a sum and not a scatter.
                token_type_ids = jnp.zeros((1, 1), jnp.int32)
            types = _embed(config, config.type_vocab_size, "token_type_embeddings")
            hidden = hidden + types(token_type_ids)
        hidden = _layer_norm(config, "norm")(hidden)
        return Dropout(config.hidden_dropout_prob)(hidden, deterministic=deterministic)


class SelfAttention(nn.Module):
    """Multi-head attention of a row's tokens to its real tokens, with the output projection.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and choices.
    dtype : dtype
        Type in which scores and values are multiplied.
    implementation : {"xla", "cudnn"}
        See `Encoder`.
    """

    config: EncoderConfig
    dtype: Any
    implementation: AttentionImplementation

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return the attended values, of the shape of `hidden`: (rows, length, hidden_size)."""
        config = self.config
        rows, length, size = hidden.shape
        heads = config.num_attention_heads

        query, key, value = (
            _dense(config, size, name)(hidden).reshape(rows, length, heads, size // heads)
            for name in ("query", "key", "value")
        )
        rate = 0.0 if deterministic else config.attention_probs_dropout_prob
        merged = self._attend(query, key, value, bias, rate).reshape(rows, length, size)
        return _dense(config, size, "output")(merged)

    def _attend(
        self, query: jax.Array, key: jax.Array, value: jax.Array, bias: jax.Array, rate: float
    ) -> jax.Array:
        """Return the attended values of each head, shape (rows, length, heads, head size)."""
        if self.implementation == "cudnn" and rate == 0:
            lowered = query.astype(self.dtype), key.astype(self.dtype), value.astype(self.dtype)
            if cudnn_applies(lowered[0]):
                return attend_to_first(*lowered, real=bias[:, 0, 0] == 0)
        # Heads before length: the batched products are then contiguous, faster on CPU.
        query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
        query = query * query.shape[-1] ** -0.5
        scores = matmul(query, jnp.swapaxes(key, -1, -2), self.dtype)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(value.dtype)
        weights = Dropout(rate)(weights, deterministic=rate == 0)
        return matmul(weights, value, self.dtype).transpose(0, 2, 1, 3)


class EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, a residual sum and LayerNorm.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and choices.
    dtype : dtype
        Type in which matrices are multiplied.
    attention_implementation : {"xla", "cudnn"}
        See `Encoder`.
    """

    config: EncoderConfig
    dtype: Any
    attention_implementation: AttentionImplementation

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, deterministic: bool) -> jax.Array:
        """Return hidden states of the shape of `hidden`: (rows, length, hidden_size)."""
        config = self.config
        implementation = self.attention_implementation
        attention = SelfAttention(config, self.dtype, implementation, name="attention")
        attended = attention(hidden, bias, deterministic=deterministic)
        dropout = Dropout(config.attention_output_dropout)
        attended = dropout(attended, deterministic=deterministic)
        hidden = _layer_norm(config, "attention_norm")(hidden + attended)

        activate = ACTIVATIONS[config.hidden_act]
        inner = activate(_dense(config, config.intermediate_size, "intermediate")(hidden))
        output = _dense(config, config.hidden_size, "output")(inner)
        output = Dropout(config.hidden_dropout_prob)(output, deterministic=deterministic)
        return _layer_norm(config, "output_norm")(hidden + output)


# `deterministic` decides what is computed, so it is no array; the module itself counts as 0.
_CheckpointedLayer = nn.remat(EncoderLayer, static_argnums=(3,))


class Encoder(nn.Module):
    """Text encoder: tokens in, one vector per token out.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and choices.
    gradient_checkpointing : bool
        Whether the backward pass computes the inside of each layer anew instead of keeping it:
        a fraction of the memory, up to a third more time, the same numbers.
    attention_implementation : {"xla", "cudnn"}
        "cudnn" takes NVIDIA's fused attention where it applies: parameters in bfloat16, a GPU of
        compute capability 8.0 or later, and no attention weight dropped, which is in evaluation,
        and in training with ``attention_probs_dropout_prob`` 0. Padding has to follow the real
        tokens of a row then: a row where it does not gets NaN. Elsewhere XLA's is taken.
    """

    config: EncoderConfig
    gradient_checkpointing: bool = False
    attention_implementation: AttentionImplementation = "xla"

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Encode a batch of rows.

        Parameters
        ----------
        input_ids : jax.Array
            Tokens, shape (rows, length), integer.
        attention_mask : jax.Array
            Nonzero for real tokens, zero for padding, shape (rows, length).
        token_type_ids : jax.Array, optional
            Types of the tokens, shape (rows, length), integer; all of type 0 by default.
        deterministic : bool
            False in training: dropout is applied, with the random stream ``"dropout"``.

        Returns
        -------
        jax.Array
            Hidden states of shape (rows, length, hidden_size) in the dtype of the parameters.
            What stands at padding is finite and without meaning.

        Raises
        ------
        ValueError
            If the rows are longer than the position table allows, token types are given to
            a family that has none, or `attention_implementation` is unknown.
        """
        config = self.config
        check_implementation(self.attention_implementation)
        length = input_ids.shape[1]
        if length > config.max_length:
            msg = (
                f"rows of {length} tokens; this {config.model_type} takes at most "
                f"{config.max_length}: split or truncate the texts"
            )
            raise ValueError(msg)
        if token_type_ids is not None and config.type_vocab_size == 0:
            msg = f"{config.model_type} has no token types; call it without token_type_ids"
            raise ValueError(msg)
        bias = attention_bias(attention_mask)
        embeddings = Embeddings(config, name="embeddings")
        hidden = embeddings(input_ids, token_type_ids, deterministic=deterministic)
        parameter_dtype = hidden.dtype
        layer_type = _CheckpointedLayer if self.gradient_checkpointing else EncoderLayer
        for index in range(config.num_hidden_layers):
            layer = layer_type(
                config, parameter_dtype, self.attention_implementation, name=f"layer_{index}"
            )
            hidden = layer(hidden, bias, deterministic)
        return hidden
