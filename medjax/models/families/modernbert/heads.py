"""What stands between a ModernBERT and its classifiers."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.activations import ACTIVATIONS
from medjax.models.dropout import Dropout
from medjax.models.families.modernbert.config import ModernBertConfig
from medjax.models.layers import layer_norm

__all__ = ["TextHead", "TokenHead"]


class _PredictionHead(nn.Module):
    """A dense layer, an activation function, LayerNorm and dropout."""

    config: ModernBertConfig

    @nn.compact
    def __call__(self, hidden: jax.Array, _: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the shape of `hidden`."""
        config = self.config
        deviation = config.initializer_range / math.sqrt(2 * config.num_hidden_layers)
        dense = nn.Dense(
            config.hidden_size,
            use_bias=config.classifier_bias,
            kernel_init=nn.initializers.normal(deviation),
            name="dense",
        )
        activated = ACTIVATIONS[config.classifier_activation](dense(hidden))
        features = layer_norm(config.norm_eps, "norm", use_bias=config.norm_bias)(activated)
        dropped: jax.Array = Dropout(config.classifier_dropout)(
            features, deterministic=deterministic
        )
        return dropped


class TokenHead(_PredictionHead):
    """The head of each token; it returns features of shape (rows, length, hidden_size)."""


class TextHead(_PredictionHead):
    """The head of the first token or of the mean of all tokens."""

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return features of the rows, shape (rows, hidden_size)."""
        if self.config.classifier_pooling == "cls":
            pooled = hidden[:, 0]
        else:
            real = (mask != 0).astype(hidden.dtype)[..., None]
            pooled = (hidden * real).sum(1) / jnp.maximum(real.sum(1), 1)
        return super().__call__(pooled, mask, deterministic=deterministic)
