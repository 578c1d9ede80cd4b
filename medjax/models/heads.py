"""Heads, which turn an encoder into a model for a task."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from medjax.models.attention import AttentionImplementation
from medjax.models.config import EncoderConfig
from medjax.models.encoder import make_encoder
from medjax.models.families import Family, family_of
from medjax.models.layers import HeadFactory

__all__ = ["Classifier", "TextClassifier", "TokenClassifier"]


class _Head(nn.Module):
    """The head and the linear classifier of a model."""

    config: EncoderConfig
    num_labels: int
    head: HeadFactory

    @nn.compact
    def __call__(self, hidden: jax.Array, mask: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return the logits, float32, of each token or row."""
        head = self.head(self.config, name="head")
        features = head(hidden, mask, deterministic=deterministic)
        kernel_init = nn.initializers.normal(self.config.classifier_range)
        classifier = nn.Dense(self.num_labels, kernel_init=kernel_init, name="classifier")
        return classifier(features).astype(jnp.float32)


class Classifier(nn.Module):
    """An encoder with a head and a linear classifier.

    Its parameters are ``{"encoder": ..., "head": ..., "classifier": {"kernel": ..., "bias":
    ...}}``, without ``"head"`` where the family's head has none.

    Attributes
    ----------
    config : EncoderConfig
        Sizes and settings of the encoder.
    num_labels : int
        Number of classes.
    gradient_checkpointing, attention_implementation
        See `make_encoder`.
    """

    config: EncoderConfig
    num_labels: int
    gradient_checkpointing: bool = False
    attention_implementation: AttentionImplementation = "xla"

    @staticmethod
    def head_of(family: Family) -> HeadFactory:
        """Return what a family has between the encoder and the classifier."""
        raise NotImplementedError

    def setup(self) -> None:
        """Make the encoder and the head, whose two parts stand beside the encoder."""
        self.encoder = make_encoder(
            self.config, self.gradient_checkpointing, self.attention_implementation
        )
        self.top = self._top()
        nn.share_scope(self, self.top)

    def _top(self) -> _Head:
        head = self.head_of(family_of(self.config))
        return _Head(self.config, self.num_labels, head, parent=None)

    def __call__(
        self,
        input_ids: jax.Array,
        attention_mask: jax.Array,
        token_type_ids: jax.Array | None = None,
        *,
        deterministic: bool,
    ) -> jax.Array:
        """Return the logits of a batch.

        Parameters
        ----------
        input_ids, attention_mask, token_type_ids : jax.Array
            As for `make_encoder`, shape (rows, length).
        deterministic : bool
            False in training: dropout is applied, with the random stream ``"dropout"``.

        Returns
        -------
        jax.Array
            Logits, shape (rows, length, num_labels) or (rows, num_labels). They are float32 even if
            the parameters are not, so that the loss is computed in float32.
        """
        hidden = self.encoder(
            input_ids, attention_mask, token_type_ids, deterministic=deterministic
        )
        logits: jax.Array = self.top(hidden, attention_mask, deterministic=deterministic)
        return logits

    def init_head(self, key: jax.Array) -> dict[str, Any]:
        """Return new parameters of all but the encoder.

        Parameters
        ----------
        key : jax.Array
            Random key.
        """
        hidden = jnp.zeros((1, 1, self.config.hidden_size))
        mask = jnp.ones((1, 1), jnp.int32)
        return dict(self._top().init(key, hidden, mask, deterministic=True)["params"])


class TokenClassifier(Classifier):
    """An encoder with a classifier of each token; see `Classifier`.

    Examples
    --------
    >>> from medjax.models import BertConfig
    >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> model, ids = TokenClassifier(config, num_labels=3), jnp.ones((2, 5), jnp.int32)
    >>> variables = model.init(jax.random.key(0), ids, ids, deterministic=True)
    >>> model.apply(variables, ids, ids, deterministic=True).shape
    (2, 5, 3)
    """

    @staticmethod
    def head_of(family: Family) -> HeadFactory:
        """Return what a family has between the encoder and the classifier."""
        return family.token_head


class TextClassifier(Classifier):
    """An encoder with a classifier of the whole text; see `Classifier`.

    What it reads of the text, and which layers precede the classifier, depends on the family, as in
    transformers: usually the first token.

    Examples
    --------
    >>> from medjax.models import BertConfig
    >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> model, ids = TextClassifier(config, num_labels=3), jnp.ones((2, 5), jnp.int32)
    >>> variables = model.init(jax.random.key(0), ids, ids, deterministic=True)
    >>> model.apply(variables, ids, ids, deterministic=True).shape
    (2, 3)
    """

    @staticmethod
    def head_of(family: Family) -> HeadFactory:
        """Return what a family has between the encoder and the classifier."""
        return family.text_head
