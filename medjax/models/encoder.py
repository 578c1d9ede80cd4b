"""A Flax encoder for BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT and ELECTRA.

These models differ only in the numbering of positions, the use of token types, and one dropout.
`EncoderConfig` describes the differences, so one set of modules serves all of them.

Matrices are multiplied in the dtype of the parameters: pass bfloat16 parameters to compute in
bfloat16. Between matrix products, values have that dtype on accelerators and are float32 on the
CPU. The softmax and the statistics of LayerNorm are always computed in float32.
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

__all__ = ["ACTIVATIONS", "Encoder"]

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": gelu,
    "gelu_new": partial(jax.nn.gelu, approximate=True),
    "gelu_pytorch_tanh": partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
"""The activation functions that `hidden_act` can name."""


def _dense(config: EncoderConfig, features: int, name: str) -> Dense:
    kernel_init = nn.initializers.normal(config.initializer_range)
    return Dense(features, kernel_init=kernel_init, name=name)


def _embed(config: EncoderConfig, rows: int, name: str) -> nn.Embed:
    embedding_init = nn.initializers.normal(config.initializer_range)
    return nn.Embed(rows, config.embedded_size, embedding_init=embedding_init, name=name)


def _layer_norm(config: EncoderConfig, name: str) -> nn.LayerNorm:
    # The fast variance, E[x^2] - E[x]^2, cancels badly when the mean is large.
    return nn.LayerNorm(epsilon=config.layer_norm_eps, use_fast_variance=False, name=name)


def _position_ids(config: EncoderConfig, input_ids: jax.Array) -> jax.Array:
    """Return the positions of tokens, numbered as in the pretrained position table.

    BERT and DistilBERT count from 0. The RoBERTa family counts tokens other than padding from
    `pad_token_id + 1`, and padding has the position `pad_token_id`
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
        Rows of the position table, int32, shape (rows, length), or (1, length) if all rows have
        the same positions.
    """
    if config.model_type not in ROBERTA_TYPES:
        return jnp.arange(input_ids.shape[1], dtype=jnp.int32)[None]
    real = (input_ids != config.pad_token_id).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + config.pad_token_id


def _attention_bias(attention_mask: jax.Array) -> jax.Array:
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


class _Embeddings(nn.Module):
    """The sum of word, position and token-type embeddings, normalised."""

    config: EncoderConfig

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array | None, *, deterministic: bool
    ) -> jax.Array:
        """Return embeddings of shape (rows, length, hidden_size)."""
        config = self.config
        hidden = _embed(config, config.vocab_size, "word_embeddings")(input_ids)
        positions = _position_ids(config, input_ids)
        table = _embed(config, config.max_position_embeddings, "position_embeddings")
        hidden = hidden + table(positions)
        if config.type_vocab_size > 0:
            if token_type_ids is None:
                # A single row, broadcast, so that its gradient is a sum instead of a scatter.
                token_type_ids = jnp.zeros((1, 1), jnp.int32)
            types = _embed(config, config.type_vocab_size, "token_type_embeddings")
            hidden = hidden + types(token_type_ids)
        hidden = _layer_norm(config, "norm")(hidden)
        hidden = Dropout(config.hidden_dropout_prob)(hidden, deterministic=deterministic)
        if config.embedded_size == config.hidden_size:
            return hidden
        return _dense(config, config.hidden_size, "projection")(hidden)


class _SelfAttention(nn.Module):
    """Multi-head attention of a row's tokens to its real tokens, with the output projection.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings.
    dtype : dtype
        Type in which scores and values are computed.
    implementation : {"xla", "cudnn"}
        See `Encoder`.
    """

    config: EncoderConfig
    dtype: Any
    implementation: AttentionImplementation

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return the attended values, shape (rows, length, hidden_size) as `hidden`."""
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
            cast = query.astype(self.dtype), key.astype(self.dtype), value.astype(self.dtype)
            if cudnn_applies(cast[0]):
                return attend_to_first(*cast, real=bias[:, 0, 0] == 0)
        # With heads before length, the batched products are contiguous, which is faster on CPU.
        query, key, value = (array.transpose(0, 2, 1, 3) for array in (query, key, value))
        query = query * query.shape[-1] ** -0.5
        scores = matmul(query, jnp.swapaxes(key, -1, -2), self.dtype)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(value.dtype)
        weights = Dropout(rate)(weights, deterministic=rate == 0)
        return matmul(weights, value, self.dtype).transpose(0, 2, 1, 3)


class _EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, a residual sum and LayerNorm.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings.
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
        """Return hidden states, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        implementation = self.attention_implementation
        attention = _SelfAttention(config, self.dtype, implementation, name="attention")
        attended = attention(hidden, bias, deterministic=deterministic)
        dropout = Dropout(config.attention_output_dropout)
        attended = dropout(attended, deterministic=deterministic)
        hidden = _layer_norm(config, "attention_norm")(hidden + attended)

        activate = ACTIVATIONS[config.hidden_act]
        inner = activate(_dense(config, config.intermediate_size, "intermediate")(hidden))
        output = _dense(config, config.hidden_size, "output")(inner)
        output = Dropout(config.hidden_dropout_prob)(output, deterministic=deterministic)
        result: jax.Array = _layer_norm(config, "output_norm")(hidden + output)
        return result


# `deterministic` (argument 3, as the module itself is 0) selects what is computed: it is static.
_CheckpointedLayer = nn.remat(_EncoderLayer, static_argnums=(3,))


class Encoder(nn.Module):
    """Text encoder that returns a vector for each token.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings.
    gradient_checkpointing : bool
        Whether the backward pass recomputes the activations inside each layer instead of keeping
        them. This takes a fraction of the memory and up to a third more time, and gives the same
        numbers.
    attention_implementation : {"xla", "cudnn"}
        "cudnn" uses NVIDIA's fused attention where it applies: with bfloat16 parameters, on a GPU
        of compute capability 8.0 or later, if no attention weights are dropped, that is, in
        evaluation and in training with ``attention_probs_dropout_prob`` 0. Padding must then follow
        the real tokens of a row; otherwise the row becomes NaN. XLA's attention is used elsewhere.

    Examples
    --------
    >>> config = EncoderConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> ids = jnp.ones((2, 5), jnp.int32)
    >>> variables = Encoder(config).init(jax.random.key(0), ids, ids, deterministic=True)
    >>> Encoder(config).apply(variables, ids, ids, deterministic=True).shape
    (2, 5, 8)
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
        """Return the hidden states of the tokens of a batch.

        Parameters
        ----------
        input_ids : jax.Array
            Tokens, shape (rows, length), integer.
        attention_mask : jax.Array
            Nonzero for real tokens, zero for padding, shape (rows, length).
        token_type_ids : jax.Array, optional
            Types of the tokens, shape (rows, length), integer; by default all are 0.
        deterministic : bool
            False in training: dropout is applied, with the random stream ``"dropout"``.

        Returns
        -------
        jax.Array
            Hidden states, shape (rows, length, hidden_size), in the dtype of the parameters.
            Those of padding are finite but meaningless.

        Raises
        ------
        ValueError
            If the rows are longer than the position table, the model has no token types but
            `token_type_ids` is passed, or `attention_implementation` is unknown.
        """
        config = self.config
        check_implementation(self.attention_implementation)
        length = input_ids.shape[1]
        if length > config.max_length:
            msg = (
                f"found rows of {length} tokens; this {config.model_type} model takes at most "
                f"{config.max_length}: split or truncate the texts"
            )
            raise ValueError(msg)
        if token_type_ids is not None and config.type_vocab_size == 0:
            msg = f"{config.model_type} has no token types; call it without token_type_ids"
            raise ValueError(msg)
        bias = _attention_bias(attention_mask)
        embeddings = _Embeddings(config, name="embeddings")
        hidden = embeddings(input_ids, token_type_ids, deterministic=deterministic)
        parameter_dtype = hidden.dtype
        layer_type = _CheckpointedLayer if self.gradient_checkpointing else _EncoderLayer
        for index in range(config.num_hidden_layers):
            layer = layer_type(
                config, parameter_dtype, self.attention_implementation, name=f"layer_{index}"
            )
            hidden = layer(hidden, bias, deterministic)
        return hidden
