"""A Flax encoder for DeBERTa-v2 and v3, whose attention depends on relative positions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.activations import ACTIVATIONS
from medjax.models.attention import AttentionImplementation
from medjax.models.dropout import Dropout
from medjax.models.families.deberta.attention import DisentangledAttention
from medjax.models.families.deberta.config import DebertaV2Config
from medjax.models.families.deberta.positions import used_rows
from medjax.models.layers import attention_bias, check_input, dense, embed, layer_norm, normal
from medjax.models.products import matmul

__all__ = ["DebertaV2Encoder"]


class _Embeddings(nn.Module):
    """The sum of word, position and token-type embeddings, normalised; zero for padding."""

    config: DebertaV2Config

    @nn.compact
    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Return embeddings of shape (rows, length, hidden_size)."""
        config = self.config
        size = config.embedded_size
        hidden = embed(config, config.vocab_size, size, "word_embeddings")(input_ids)
        dtype = hidden.dtype  # that of the parameters
        if config.position_biased_input:
            table = embed(config, config.max_position_embeddings, size, "position_embeddings")
            hidden = hidden + table(jnp.arange(input_ids.shape[1], dtype=jnp.int32))
        if config.has_token_types:
            if token_type_ids is None:
                # A single row, broadcast, so that its gradient is a sum instead of a scatter.
                token_type_ids = jnp.zeros((1, 1), jnp.int32)
            types = embed(config, config.type_vocab_size, size, "token_type_embeddings")
            hidden = hidden + types(token_type_ids)
        if size != config.hidden_size:
            hidden = dense(config, config.hidden_size, "projection", use_bias=False)(hidden)
        hidden = layer_norm(config.layer_norm_eps, "norm")(hidden)
        hidden = jnp.where(attention_mask[..., None] != 0, hidden, 0)
        hidden = Dropout(config.hidden_dropout_prob)(hidden, deterministic=deterministic)
        return hidden.astype(dtype)


class _EncoderLayer(nn.Module):
    """Attention and feed-forward, each followed by dropout, a residual sum and LayerNorm."""

    config: DebertaV2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: jax.Array, bias: jax.Array, table: jax.Array | None, deterministic: bool
    ) -> jax.Array:
        """Return hidden states, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        dropout = Dropout(config.hidden_dropout_prob)
        attention = DisentangledAttention(config, self.dtype, name="attention")
        attended = attention(hidden, bias, table, deterministic=deterministic)
        attended = dropout(attended, deterministic=deterministic)
        hidden = layer_norm(config.layer_norm_eps, "attention_norm")(hidden + attended)

        activate = ACTIVATIONS[config.hidden_act]
        inner = activate(dense(config, config.intermediate_size, "intermediate")(hidden))
        output = dense(config, config.hidden_size, "output")(inner)
        output = dropout(output, deterministic=deterministic)
        result: jax.Array = layer_norm(config.layer_norm_eps, "output_norm")(hidden + output)
        return result


# `deterministic` (argument 4, as the module itself is 0) selects what is computed: it is static.
_CheckpointedLayer = nn.remat(_EncoderLayer, static_argnums=(4,))


class _Convolution(nn.Module):
    """A convolution of the embeddings, added to the output of the first layer; zero for padding."""

    config: DebertaV2Config
    dtype: Any

    @nn.compact
    def __call__(
        self,
        embeddings: jax.Array,
        hidden: jax.Array,
        attention_mask: jax.Array,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Return hidden states, shape (rows, length, hidden_size) as `hidden`."""
        config, size = self.config, self.config.hidden_size
        width, groups = config.conv_kernel_size, config.conv_groups
        kernel = self.param("kernel", normal(config), (width, size // groups, size))
        bias = self.param("bias", nn.initializers.zeros, (size,))
        rows, length = hidden.shape[:2]
        padded = jnp.pad(embeddings, ((0, 0), (width // 2, width // 2), (0, 0)))
        near = jnp.stack([padded[:, first : first + length] for first in range(width)], axis=2)
        # A product of matrices for each group, for its precision, and its speed on CPU.
        near = near.reshape(rows * length, width, groups, -1).transpose(2, 0, 1, 3)
        kernel = kernel.reshape(width, size // groups, groups, -1).transpose(2, 0, 1, 3)
        stacks = near.reshape(groups, rows * length, -1), kernel.reshape(groups, -1, size // groups)
        result = matmul(stacks[0], stacks[1], self.dtype).transpose(1, 0, 2).reshape(hidden.shape)
        result = Dropout(config.hidden_dropout_prob)(result + bias, deterministic=deterministic)
        hidden = hidden + ACTIVATIONS[config.conv_act](result)
        hidden = layer_norm(config.layer_norm_eps, "norm")(hidden)
        return jnp.where(attention_mask[..., None] != 0, hidden, 0)


class DebertaV2Encoder(nn.Module):
    """Text encoder that returns a vector for each token; its fields are those of `make_encoder`.

    XLA computes attention whatever `attention_implementation` is: cuDNN's takes no scores by
    position.
    """

    config: DebertaV2Config
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
        table = self._table(input_ids.shape[1])
        embeddings = _Embeddings(config, name="embeddings")(
            input_ids, attention_mask, token_type_ids, deterministic=deterministic
        )
        hidden, dtype = embeddings, embeddings.dtype  # that of the parameters
        layer_type = _CheckpointedLayer if self.gradient_checkpointing else _EncoderLayer
        for index in range(config.num_hidden_layers):
            layer = layer_type(config, dtype, name=f"layer_{index}")
            hidden = layer(hidden, bias, table, deterministic)
            if index == 0 and config.conv_kernel_size > 0:
                convolution = _Convolution(config, dtype, name="conv")
                hidden = convolution(
                    embeddings, hidden, attention_mask, deterministic=deterministic
                )
        return hidden

    def _table(self, length: int) -> jax.Array | None:
        """Return the embeddings of the relative positions in rows of `length` tokens, if any."""
        config = self.config
        if not config.relative_attention:
            return None
        rows = embed(config, 2 * config.position_span, config.hidden_size, "rel_embeddings")
        table = rows.embedding[used_rows(config, length)]
        if config.norm_rel_ebd == "layer_norm":
            table = layer_norm(config.layer_norm_eps, "rel_norm")(table)
        return table
