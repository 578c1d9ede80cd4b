"""BertConfig: the sizes and settings of BERT and the models that are built like it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from medjax.models.config import EncoderConfig

__all__ = ["ROBERTA_TYPES", "BertConfig"]

ROBERTA_TYPES = frozenset({"roberta", "camembert", "xlm-roberta"})
"""Model types that number positions from `pad_token_id + 1` and skip padding."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig(EncoderConfig):
    """Sizes and settings of a BERT, RoBERTa, CamemBERT, XLM-RoBERTa, DistilBERT or ELECTRA.

    Attributes
    ----------
    max_position_embeddings : int
        Rows of the position table. The longest input has `max_length` tokens, which is less for
        the RoBERTa family.
    type_vocab_size : int
        Number of token types; 0 for DistilBERT, which has none.
    embedding_size : int or None
        Size of the embeddings, from which a dense layer goes to `hidden_size` if it is another
        one. Only ELECTRA has it; None means `hidden_size`.
    hidden_act : str
        Activation function of the feed-forward layers.
    layer_norm_eps : float
        Added to the variance in LayerNorm.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Probabilities of dropping a hidden value and an attention probability.
    classifier_dropout : float or None
        Probability of dropping an input of the classifier; `hidden_dropout_prob` if None.
    seq_classif_dropout : float or None
        Probability of dropping an input of a text classifier; None for that of any classifier.
        Only DistilBERT has it.
    model_type, vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size
        See `EncoderConfig`, as for `pad_token_id` and `initializer_range`.

    Raises
    ------
    ValueError
        If a field is out of range or two fields contradict each other.

    Examples
    --------
    >>> config = BertConfig(model_type="roberta", vocab_size=100, hidden_size=32,
    ...     num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    ...     max_position_embeddings=40, type_vocab_size=1, pad_token_id=1)
    >>> config.max_length
    38
    """

    model_type: str = "bert"
    type_vocab_size: int = 2
    embedding_size: int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    seq_classif_dropout: float | None = None

    model_types: ClassVar[frozenset[str]] = frozenset({"bert", "distilbert", "electra"}) | (
        ROBERTA_TYPES
    )
    rates: ClassVar[tuple[str, ...]] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout",
        "seq_classif_dropout",
    )
    scales: ClassVar[tuple[str, ...]] = ("layer_norm_eps", "initializer_range")
    activations: ClassVar[tuple[str, ...]] = ("hidden_act",)

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        for name in self.rates[:2]:
            self._require(name, getattr(self, name) is not None, "a probability in [0, 1)")
        if self.embedding_size is not None:
            self._require_integer("embedding_size", 1, "a positive integer")
            self._require("embedding_size", self.model_type == "electra", "None, but for electra")
        if self.model_type == "distilbert":
            self._require("type_vocab_size", self.type_vocab_size == 0, "0 for distilbert")
        else:
            self._require_integer("type_vocab_size", 1, "a positive integer")
        self._require(
            "max_position_embeddings", self.max_length >= 1, f"more than {self.first_position}"
        )

    @property
    def embedded_size(self) -> int:
        """Size of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def first_position(self) -> int:
        """Row of the position table for the first token of a text."""
        return self.pad_token_id + 1 if self.numbers_positions_by_padding else 0

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self.max_position_embeddings - self.first_position

    @property
    def has_token_types(self) -> bool:
        """Whether tokens have types."""
        return self.type_vocab_size > 0

    @property
    def numbers_positions_by_padding(self) -> bool:
        """Whether positions are numbered from `pad_token_id + 1`, and padding has none."""
        return self.model_type in ROBERTA_TYPES

    @property
    def attention_output_dropout(self) -> float:
        """Probability of dropping a value of the attention block's output; 0 for DistilBERT.

        Source: `DistilBertSelfAttention.forward` in transformers 5.
        """
        return 0.0 if self.model_type == "distilbert" else self.hidden_dropout_prob

    @property
    def head_dropout(self) -> float:
        """Probability of dropping an input of the classifier."""
        if self.classifier_dropout is None:
            return self.hidden_dropout_prob
        return self.classifier_dropout

    @property
    def text_head_dropout(self) -> float:
        """Probability of dropping an input of a text classifier."""
        return self.head_dropout if self.seq_classif_dropout is None else self.seq_classif_dropout
