"""A Flax encoder for BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT and ELECTRA.

These models differ only in the numbering of positions, the use of token types, the size of the
embeddings and one dropout. `BertConfig` describes the differences, so one set of modules serves all
of them.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.activations import ACTIVATIONS
from medjax.models.attention import AttentionImplementation
from medjax.models.dropout import Dropout
from medjax.models.families.bert.config import BertConfig
from medjax.models.layers import attend, attention_bias, check_input, dense, embed, layer_norm

__all__ = ["BertEncoder"]


def _position_ids(config: BertConfig, input_ids: jax.Array) -> jax.Array:
    """Return the positions of tokens, numbered as in the pretrained position table.

    BERT and DistilBERT count from 0. The RoBERTa family counts tokens other than padding from
    `pad_token_id + 1`, and padding has the position `pad_token_id`
    (`create_position_ids_from_input_ids` in transformers).

    Parameters
    ----------
    config : BertConfig
        The encoder's configuration.
    input_ids : jax.Array
        Tokens, shape (rows, length), integer.

    Returns
    -------
    jax.Array
        Rows of the position table, int32, shape (rows, length), or (1, length) if all rows have
        the same positions.
    """
    if not config.numbers_positions_by_padding:
        return jnp.arange(input_ids.shape[1], dtype=jnp.int32)[None]
    real = (input_ids != config.pad_token_id).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + config.pad_token_id


class _Embeddings(nn.Module):
    """The sum of word, position and token-type embeddings, normalised."""

    config: BertConfig

    @nn.compact
    def __call__(
        self, input_ids: jax.Array, token_type_ids: jax.Array | None, *, deterministic: bool
    ) -> jax.Array:
        """Return embeddings of shape (rows, length, hidden_size)."""
        config = self.config
        size = config.embedded_size
        hidden = embed(config, config.vocab_size, size, "word_embeddings")(input_ids)
        positions = _position_ids(config, input_ids)
        table = embed(config, config.max_position_embeddings, size, "position_embeddings")
        hidden = hidden + table(positions)
        if config.type_vocab_size > 0:
            if token_type_ids is None:
                # A single row, broadcast, so that its gradient is a sum instead of a scatter.
                token_type_ids = jnp.zeros((1, 1), jnp.int32)
            types = embed(config, config.type_vocab_size, size, "token_type_embeddings")
            hidden = hidden + types(token_type_ids)
        hidden = layer_norm(config.layer_norm_eps, "norm")(hidden)
        hidden = Dropout(config.hidden_dropout_prob)(hidden, deterministic=deterministic)
        if config.embedded_size == config.hidden_size:
            return hidden
        return dense(config, config.hidden_size, "projection")(hidden)


class _SelfAttention(nn.Module):
    """Multi-head attention of a row's tokens to its real tokens, with the output projection."""

    config: BertConfig
    dtype: Any
    attention_implementation: AttentionImplementation

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return the attended values, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        size = config.hidden_size
        heads = (*hidden.shape[:2], config.num_attention_heads, config.head_size)
        query, key, value = (
            dense(config, size, name)(hidden).reshape(heads) for name in ("query", "key", "value")
        )
        attended = attend(
            query,
            key,
            value,
            bias,
            rate=0.0 if deterministic else config.attention_probs_dropout_prob,
            dtype=self.dtype,
            implementation=self.attention_implementation,
        )
        return dense(config, size, "output")(attended.reshape(hidden.shape))


class _EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, a residual sum and LayerNorm.

    Attributes
    ----------
    config : BertConfig
        Sizes and settings.
    dtype : dtype
        Type in which matrices are multiplied.
    attention_implementation : {"xla", "cudnn"}
        See `Encoder`.
    """

    config: BertConfig
    dtype: Any
    attention_implementation: AttentionImplementation

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, deterministic: bool) -> jax.Array:
        """Return hidden states, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        attention = _SelfAttention(
            config, self.dtype, self.attention_implementation, name="attention"
        )
        attended = attention(hidden, bias, deterministic=deterministic)
        dropout = Dropout(config.attention_output_dropout)
        attended = dropout(attended, deterministic=deterministic)
        hidden = layer_norm(config.layer_norm_eps, "attention_norm")(hidden + attended)

        activate = ACTIVATIONS[config.hidden_act]
        inner = activate(dense(config, config.intermediate_size, "intermediate")(hidden))
        output = dense(config, config.hidden_size, "output")(inner)
        output = Dropout(config.hidden_dropout_prob)(output, deterministic=deterministic)
        result: jax.Array = layer_norm(config.layer_norm_eps, "output_norm")(hidden + output)
        return result


# `deterministic` (argument 3, as the module itself is 0) selects what is computed: it is static.
_CheckpointedLayer = nn.remat(_EncoderLayer, static_argnums=(3,))


class BertEncoder(nn.Module):
    """Text encoder that returns a vector for each token; its fields are those of `make_encoder`."""

    config: BertConfig
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
        """Return the hidden states of the tokens of a batch; see `make_encoder`."""
        config = self.config
        check_input(config, input_ids, token_type_ids, self.attention_implementation)
        bias = attention_bias(attention_mask)
        embeddings = _Embeddings(config, name="embeddings")
        hidden = embeddings(input_ids, token_type_ids, deterministic=deterministic)
        dtype = hidden.dtype  # that of the parameters
        layer_type = _CheckpointedLayer if self.gradient_checkpointing else _EncoderLayer
        for index in range(config.num_hidden_layers):
            layer = layer_type(config, dtype, self.attention_implementation, name=f"layer_{index}")
            hidden = layer(hidden, bias, deterministic)
        return hidden
