"""Heads, which turn an encoder into a model for a task."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.activations import gelu
from medjax.models.attention import AttentionImplementation
from medjax.models.config import ROBERTA_TYPES, EncoderConfig
from medjax.models.dropout import Dropout
from medjax.models.encoder import Encoder

__all__ = ["TextClassifier", "TokenClassifier"]


class TokenClassifier(nn.Module):
    """An encoder with a linear classifier of each token.

    Its parameters are ``{"encoder": ..., "classifier": {"kernel": ..., "bias": ...}}``.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings of the encoder.
    num_labels : int
        Number of classes.
    gradient_checkpointing, attention_implementation
        See `Encoder`.

    Examples
    --------
    >>> config = EncoderConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> model, ids = TokenClassifier(config, num_labels=3), jnp.ones((2, 5), jnp.int32)
    >>> variables = model.init(jax.random.key(0), ids, ids, deterministic=True)
    >>> model.apply(variables, ids, ids, deterministic=True).shape
    (2, 5, 3)
    """

    config: EncoderConfig
    num_labels: int
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
        """Return the logits of the tokens of a batch.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : jax.Array
            As for `Encoder`, shape (rows, length).
        deterministic : bool
            False in training: dropout is applied, with the random stream ``"dropout"``.

        Returns
        -------
        jax.Array
            Logits, shape (rows, length, num_labels). They are float32 even if the parameters are
            not, so that the loss is computed in float32.
        """
        encoder = Encoder(
            self.config, self.gradient_checkpointing, self.attention_implementation, name="encoder"
        )
        hidden = encoder(input_ids, attention_mask, token_type_ids, deterministic=deterministic)
        hidden = Dropout(self.config.head_dropout)(hidden, deterministic=deterministic)
        kernel_init = nn.initializers.normal(self.config.initializer_range)
        classifier = nn.Dense(self.num_labels, kernel_init=kernel_init, name="classifier")
        return classifier(hidden).astype(jnp.float32)


class TextClassifier(nn.Module):
    """An encoder with a classifier of the whole text, which reads the first token.

    As in transformers, a dense layer, tanh (relu for DistilBERT, gelu for ELECTRA) and dropout
    precede the linear classifier; the RoBERTa family and ELECTRA also drop inputs of the dense
    layer. Its parameters are
    ``{"encoder": ..., "pooler": {"kernel": ..., "bias": ...}, "classifier": ...}``.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings of the encoder.
    num_labels : int
        Number of classes.
    gradient_checkpointing, attention_implementation
        See `Encoder`.

    Examples
    --------
    >>> config = EncoderConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> model, ids = TextClassifier(config, num_labels=3), jnp.ones((2, 5), jnp.int32)
    >>> variables = model.init(jax.random.key(0), ids, ids, deterministic=True)
    >>> model.apply(variables, ids, ids, deterministic=True).shape
    (2, 3)
    """

    config: EncoderConfig
    num_labels: int
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
        """Return the logits of the texts of a batch.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids, deterministic
            As for `TokenClassifier`.

        Returns
        -------
        jax.Array
            Logits, float32, shape (rows, num_labels).
        """
        config = self.config
        encoder = Encoder(
            config, self.gradient_checkpointing, self.attention_implementation, name="encoder"
        )
        hidden = encoder(input_ids, attention_mask, token_type_ids, deterministic=deterministic)
        dropout = Dropout(config.text_head_dropout)
        first = hidden[:, 0]
        if config.model_type in ROBERTA_TYPES | {"electra"}:
            first = dropout(first, deterministic=deterministic)
        kernel_init = nn.initializers.normal(config.initializer_range)
        pooler = nn.Dense(config.hidden_size, kernel_init=kernel_init, name="pooler")
        activate = {"distilbert": nn.relu, "electra": gelu}.get(config.model_type, nn.tanh)
        pooled = dropout(activate(pooler(first)), deterministic=deterministic)
        classifier = nn.Dense(self.num_labels, kernel_init=kernel_init, name="classifier")
        return classifier(pooled).astype(jnp.float32)
