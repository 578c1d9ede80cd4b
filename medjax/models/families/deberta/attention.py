"""Attention by contents and by relative positions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.dropout import Dropout
from medjax.models.families.deberta.config import C2P, P2C, DebertaV2Config
from medjax.models.families.deberta.positions import (
    reversed_rows,
    rows_of_distances,
    shift,
    used_rows,
)
from medjax.models.layers import dense
from medjax.models.products import Dense, matmul

__all__ = ["DisentangledAttention"]


class DisentangledAttention(nn.Module):
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
            products = self._products(key, queries, reversed_rows(rows))
            scores = scores + jnp.swapaxes(shift(products), 2, 3)
        return scores

    def _projection(self, name: str, project: dict[str, Dense]) -> Dense:
        """Return the projection of positions to keys or queries."""
        if self.config.share_att_key:
            return project[name]
        return dense(self.config, self.config.hidden_size, f"position_{name}")

    def _products(self, contents: jax.Array, positions: jax.Array, rows: Any) -> jax.Array:
        """Return the products of contents, (heads, rows, n, size), and of some rows of positions.

        The result has the shape (heads, rows, n, number of rows).
        """
        heads, *others, size = contents.shape
        contents = contents.reshape(heads, -1, size)
        columns = jnp.swapaxes(positions[:, rows], 1, 2)
        return matmul(contents, columns, self.dtype).reshape(heads, *others, -1)
