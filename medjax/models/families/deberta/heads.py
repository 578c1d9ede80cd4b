"""What stands between an encoder of DeBERTa-v2's family and its classifiers.

Each module takes hidden states, shape (rows, length, hidden_size), and a mask, shape (rows,
length), and returns the features that are classified, of each token or of each row.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from medjax.models.activations import ACTIVATIONS
from medjax.models.dropout import Dropout
from medjax.models.families.deberta.config import DebertaV2Config
from medjax.models.layers import normal

__all__ = ["TextHead", "TokenHead"]


class TokenHead(nn.Module):
    """Dropout of the hidden states."""

    config: DebertaV2Config

    @nn.compact
    def __call__(self, hidden: jax.Array, _: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the tokens, shape (rows, length, hidden_size)."""
        dropout = Dropout(self.config.hidden_dropout_prob)
        features: jax.Array = dropout(hidden, deterministic=deterministic)
        return features


class TextHead(nn.Module):
    """A dense layer on the first token, with dropout before it and after its activation."""

    config: DebertaV2Config

    @nn.compact
    def __call__(self, hidden: jax.Array, _: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the rows, shape (rows, hidden_size)."""
        config = self.config
        first = Dropout(config.pooler_dropout)(hidden[:, 0], deterministic=deterministic)
        layer = nn.Dense(config.hidden_size, kernel_init=normal(config), name="dense")
        pooled = ACTIVATIONS[config.pooler_hidden_act](layer(first))
        dropout = Dropout(config.text_head_dropout)
        features: jax.Array = dropout(pooled, deterministic=deterministic)
        return features
