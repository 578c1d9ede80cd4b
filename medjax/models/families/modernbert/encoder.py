"""A Flax encoder for ModernBERT.

Most layers are local: a token attends to the tokens nearby, at a cost proportional to the length.
Positions are rotations of queries and keys. Layers normalise their inputs, and the feed-forward
layers are gated.

References
----------
Warner et al., "Smarter, better, faster, longer: a modern bidirectional encoder", 2024. Su et al.,
"RoFormer: enhanced transformer with rotary position embedding", 2021.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.activations import ACTIVATIONS
from medjax.models.attention import AttentionImplementation
from medjax.models.dropout import Dropout
from medjax.models.families.modernbert.config import ModernBertConfig
from medjax.models.layers import (
    attend,
    attend_nearby,
    attention_bias,
    check_input,
    dense,
    embed,
    layer_norm,
)

__all__ = ["ModernBertEncoder"]


class _Embeddings(nn.Module):
    """Word embeddings, normalised."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, input_ids: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return embeddings of shape (rows, length, hidden_size)."""
        config = self.config
        hidden = embed(config, config.vocab_size, config.hidden_size, "word_embeddings")(input_ids)
        hidden = layer_norm(config.norm_eps, "norm", use_bias=config.norm_bias)(hidden)
        dropped: jax.Array = Dropout(config.embedding_dropout)(hidden, deterministic=deterministic)
        return dropped


def _rotated(vectors: jax.Array, theta: float) -> jax.Array:
    """Rotate queries or keys by angles proportional to their positions.

    Parameters
    ----------
    vectors : jax.Array
        Shape (rows, length, heads, head size). Element `i` of the first half and element `i` of the
        second are rotated together, by ``position / theta ** (2 i / head size)``.
    theta : float
        Base of the frequencies.
    """
    half = vectors.shape[-1] // 2
    frequencies = theta ** -(np.arange(half, dtype=np.float32) / np.float32(half))
    positions = jnp.arange(vectors.shape[1], dtype=jnp.float32)
    angles = (positions[:, None] * frequencies.astype(np.float32))[:, None, :]
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = vectors[..., :half], vectors[..., half:]
    rotated = (first * cosine - second * sine, second * cosine + first * sine)
    return jnp.concatenate(rotated, -1).astype(vectors.dtype)


class _SelfAttention(nn.Module):
    """Multi-head attention to the real tokens of a row, or to those nearby."""

    config: ModernBertConfig
    dtype: Any
    attention_implementation: AttentionImplementation
    is_local: bool

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return the attended values, shape (rows, length, hidden_size) as `hidden`."""
        config, use_bias = self.config, self.config.attention_bias
        size = config.hidden_size
        joined = dense(config, 3 * size, "query_key_value", use_bias=use_bias)(hidden)
        heads = (*hidden.shape[:2], 3, config.num_attention_heads, config.head_size)
        query, key, value = jnp.moveaxis(joined.reshape(heads), 2, 0)
        theta = config.local_rope_theta if self.is_local else config.global_rope_theta
        query, key = _rotated(query, theta), _rotated(key, theta)
        rate = 0.0 if deterministic else config.attention_dropout
        if self.is_local:
            attended = attend_nearby(
                query, key, value, bias, reach=config.reach, rate=rate, dtype=self.dtype
            )
        else:
            attended = attend(
                query,
                key,
                value,
                bias,
                rate=rate,
                dtype=self.dtype,
                implementation=self.attention_implementation,
            )
        merged = attended.reshape(hidden.shape)
        output = dense(config, size, "output", use_bias=use_bias)(merged)
        dropped: jax.Array = Dropout(config.attention_dropout)(output, deterministic=deterministic)
        return dropped


class _EncoderLayer(nn.Module):
    """Attention and a gated feed-forward part, each of normalised inputs and added to them.

    Attributes
    ----------
    config : ModernBertConfig
        Sizes and settings.
    dtype : dtype
        Type in which matrices are multiplied.
    attention_implementation : {"xla", "cudnn"}
        See `make_encoder`; local layers always use XLA's.
    index : int
        Number of the layer.
    """

    config: ModernBertConfig
    dtype: Any
    attention_implementation: AttentionImplementation
    index: int

    @nn.compact
    def __call__(self, hidden: jax.Array, bias: jax.Array, deterministic: bool) -> jax.Array:
        """Return hidden states, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        normalised = hidden
        if self.index > 0:  # the embeddings are normalised already
            normalised = self._norm("attention_norm")(hidden)
        attention = _SelfAttention(
            config,
            self.dtype,
            self.attention_implementation,
            config.is_local(self.index),
            name="attention",
        )
        hidden = hidden + attention(normalised, bias, deterministic=deterministic)

        width, use_bias = config.intermediate_size, config.mlp_bias
        joined = dense(config, 2 * width, "intermediate", use_bias=use_bias)(
            self._norm("intermediate_norm")(hidden)
        )
        activate = ACTIVATIONS[config.hidden_activation]
        inner = activate(joined[..., :width]) * joined[..., width:]
        inner = Dropout(config.mlp_dropout)(inner, deterministic=deterministic)
        output = dense(config, config.hidden_size, "output", use_bias=use_bias)(inner)
        result: jax.Array = hidden + output
        return result

    def _norm(self, name: str) -> nn.LayerNorm:
        return layer_norm(self.config.norm_eps, name, use_bias=self.config.norm_bias)


# `deterministic` (argument 3, as the module itself is 0) selects what is computed: it is static.
_CheckpointedLayer = nn.remat(_EncoderLayer, static_argnums=(3,))


class ModernBertEncoder(nn.Module):
    """Text encoder that returns a vector for each token; its fields are those of `make_encoder`."""

    config: ModernBertConfig
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
        hidden = _Embeddings(config, name="embeddings")(input_ids, deterministic=deterministic)
        dtype = hidden.dtype  # that of the parameters
        layer_type = _CheckpointedLayer if self.gradient_checkpointing else _EncoderLayer
        for index in range(config.num_hidden_layers):
            name = f"layer_{index}"
            layer = layer_type(config, dtype, self.attention_implementation, index, name=name)
            hidden = layer(hidden, bias, deterministic)
        final: jax.Array = layer_norm(config.norm_eps, "final_norm", use_bias=config.norm_bias)(
            hidden
        )
        return final
