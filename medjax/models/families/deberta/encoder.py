"""A Flax encoder for DeBERTa-v2 and v3, whose attention depends on relative positions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from medjax.models.activations import ACTIVATIONS
from medjax.models.attention import AttentionImplementation
from medjax.models.dropout import Dropout
from medjax.models.families.deberta.config import C2P, P2C, DebertaV2Config
from medjax.models.families.deberta.positions import rows_of_distances, shift, used_rows
from medjax.models.layers import attention_bias, check_input, dense, embed, layer_norm, normal
from medjax.models.products import Dense, matmul

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


class _Attention(nn.Module):
    """Attention by contents and relative positions, with the output projection.

    The score of a query q at position i and a key k at j is ``(q.k + q.K(i - j) + k.Q(i - j)) /
    sqrt(3 x head size)``, where K and Q are projections of the embeddings of the distance (He et
    al. 2021); without the second or third term, there is a 2 for the 3.

    Attributes
    ----------
    config : DebertaV2Config
        Sizes and settings.
    dtype : dtype
        Type in which matrices are multiplied.
    """

    config: DebertaV2Config
    dtype: Any

    @nn.compact
    def __call__(
        self, hidden: jax.Array, bias: jax.Array, table: jax.Array | None, *, deterministic: bool
    ) -> jax.Array:
        """Return the attended values, shape (rows, length, hidden_size) as `hidden`."""
        config = self.config
        size, rate = config.hidden_size, config.attention_probs_dropout_prob
        project = {name: dense(config, size, name) for name in ("query", "key", "value")}
        # Heads come first, as they are all that contents and positions have in common.
        query, key, value = (self._by_head(layer(hidden)) for layer in project.values())
        query = query * (config.head_size * (1 + len(config.pos_att_type))) ** -0.5
        scores = bias[:, 0] + matmul(query, jnp.swapaxes(key, -1, -2), self.dtype)
        if table is not None:
            table = Dropout(config.hidden_dropout_prob)(table, deterministic=deterministic)
            scores = scores + self._by_position(query, key, table, project)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        weights = Dropout(rate)(weights, deterministic=deterministic)
        attended = matmul(weights, value, self.dtype).transpose(1, 2, 0, 3)
        return dense(config, size, "output")(attended.reshape(hidden.shape))

    def _by_head(self, array: jax.Array) -> jax.Array:
        """Return an array of shape (..., hidden_size) as (heads, ..., head size)."""
        heads = array.reshape(*array.shape[:-1], self.config.num_attention_heads, -1)
        return jnp.moveaxis(heads, -2, 0)

    def _by_position(
        self, query: jax.Array, key: jax.Array, table: jax.Array, project: dict[str, Dense]
    ) -> jax.Array:
        """Return the scores of positions, shape (heads, rows, length, length).

        Parameters
        ----------
        query, key : jax.Array
            Shape (heads, rows, length, head size); `query` is scaled.
        table : jax.Array
            The embeddings of distances that `used_rows` names, shape (distances, hidden_size).
        project : dict
            The projections of contents.
        """
        config, length = self.config, query.shape[2]
        rows = rows_of_distances(config, length) - used_rows(config, length).start
        scores = jnp.zeros((), jnp.float32)
        if C2P in config.pos_att_type:
            keys = self._by_head(self._projection("key", project)(table))
            scores = scores + shift(self._products(query, keys, rows))
        if P2C in config.pos_att_type:
            scale = (config.head_size * (1 + len(config.pos_att_type))) ** -0.5
            queries = self._by_head(self._projection("query", project)(table)) * scale
            # The rows of these scores are keys, for which distances go the other way.
            backwards = np.roll(rows[::-1], -1)
            scores = scores + jnp.swapaxes(shift(self._products(key, queries, backwards)), 2, 3)
        return scores

    def _projection(self, name: str, project: dict[str, Dense]) -> Dense:
        """Return the projection of positions to keys or queries."""
        if self.config.share_att_key:
            return project[name]
        return dense(self.config, self.config.hidden_size, f"position_{name}")

    def _products(self, contents: jax.Array, positions: jax.Array, rows: np.ndarray) -> jax.Array:
        """Return the products of contents, (heads, rows, n, size), and of some rows of positions.

        The result has the shape (heads, rows, n, number of rows).
        """
        heads, *others, size = contents.shape
        contents = contents.reshape(heads, -1, size)
        columns = jnp.swapaxes(positions[:, rows], 1, 2)
        return matmul(contents, columns, self.dtype).reshape(heads, *others, -1)


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
        attention = _Attention(config, self.dtype, name="attention")
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
