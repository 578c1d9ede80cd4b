"""What stands between an encoder of BERT's family and its classifiers.

Each module takes hidden states, shape (rows, length, hidden_size), and a mask, shape (rows,
length), and returns the features that are classified, of each token or of each row.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from medjax.models.dropout import Dropout
from medjax.models.families.bert.config import BertConfig
from medjax.models.layers import normal

__all__ = ["TextHead", "TokenHead"]


class TokenHead(nn.Module):
    """Dropout of the hidden states."""

    config: BertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, _: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the tokens, shape (rows, length, hidden_size)."""
        features: jax.Array = Dropout(self.config.head_dropout)(hidden, deterministic=deterministic)
        return features


class TextHead(nn.Module):
    """A dense layer on the first token, an activation function and dropout.

    Attributes
    ----------
    config : BertConfig
        Sizes and settings.
    activate : callable
        The activation function.
    drops_inputs : bool
        Whether inputs of the dense layer are dropped, too.
    """

    config: BertConfig
    activate: Callable[[jax.Array], jax.Array]
    drops_inputs: bool = False

    @nn.compact
    def __call__(self, hidden: jax.Array, _: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the rows, shape (rows, hidden_size)."""
        size = self.config.hidden_size
        dropout = Dropout(self.config.text_head_dropout)
        first = hidden[:, 0]
        if self.drops_inputs:
            first = dropout(first, deterministic=deterministic)
        pooled = nn.Dense(size, kernel_init=normal(self.config), name="dense")(first)
        features: jax.Array = dropout(self.activate(pooled), deterministic=deterministic)
        return features
