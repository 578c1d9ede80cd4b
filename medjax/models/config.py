"""EncoderConfig: the sizes and settings of an encoder, with Hugging Face's names."""

from __future__ import annotations

import dataclasses
import math
import numbers

__all__ = ["ACTIVATION_NAMES", "MODEL_TYPES", "ROBERTA_TYPES", "EncoderConfig"]

ROBERTA_TYPES = frozenset({"roberta", "camembert", "xlm-roberta"})
"""Model types that number positions from `pad_token_id + 1` and skip padding."""

MODEL_TYPES = frozenset({"bert", "distilbert", "electra"}) | ROBERTA_TYPES
"""Values of `model_type` in config.json that the encoder implements."""

ACTIVATION_NAMES = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu"})
"""Values of `hidden_act` that the encoder implements."""

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
)
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "seq_classif_dropout",
)
_OPTIONAL = ("classifier_dropout", "seq_classif_dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and settings of an encoder, named like the fields of Hugging Face's `BertConfig`.

    Attributes
    ----------
    model_type : str
        Family of models, one of `MODEL_TYPES`.
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Sizes; `hidden_size` is a multiple of `num_attention_heads`.
    max_position_embeddings : int
        Rows of the position table. The longest input has `max_length` tokens, which is less for
        the RoBERTa family.
    type_vocab_size : int
        Number of token types; 0 for DistilBERT, which has none.
    embedding_size : int or None
        Size of the embeddings, from which a dense layer goes to `hidden_size` if it is another
        one. Only ELECTRA has it; None means `hidden_size`.
    hidden_act : str
        Activation function of the feed-forward layers, one of `ACTIVATION_NAMES`.
    layer_norm_eps : float
        Added to the variance in LayerNorm.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Probabilities of dropping a hidden value and an attention probability.
    classifier_dropout : float or None
        Probability of dropping an input of the classifier; `hidden_dropout_prob` if None.
    seq_classif_dropout : float or None
        Probability of dropping an input of a text classifier; None for that of any classifier.
        Only DistilBERT has it.
    pad_token_id : int
        Token that short rows are padded with.
    initializer_range : float
        Standard deviation of newly initialised kernels and embeddings.

    Raises
    ------
    ValueError
        If a field is out of range or two fields contradict each other.

    Examples
    --------
    >>> config = EncoderConfig(model_type="roberta", vocab_size=100, hidden_size=32,
    ...     num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
    ...     max_position_embeddings=40, type_vocab_size=1, pad_token_id=1)
    >>> config.max_length
    38
    """

    model_type: str = "bert"
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    embedding_size: int | None = None
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None
    seq_classif_dropout: float | None = None
    pad_token_id: int = 0
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        """Check every field."""
        for name, allowed in (("model_type", MODEL_TYPES), ("hidden_act", ACTIVATION_NAMES)):
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                msg = f"{name} is {value!r}; this encoder supports {', '.join(sorted(allowed))}"
                raise ValueError(msg)
        for name in (*_SIZES, "type_vocab_size", "pad_token_id"):
            self._require(name, _is_number(getattr(self, name), numbers.Integral), "an integer")
        for name in (*_DROPOUTS, "layer_norm_eps", "initializer_range"):
            value = getattr(self, name)
            is_left_out = name in _OPTIONAL and value is None
            self._require(name, is_left_out or _is_number(value, numbers.Real), "a number")
        if self.embedding_size is not None:
            is_size = _is_number(self.embedding_size, numbers.Integral) and self.embedding_size >= 1
            self._require("embedding_size", is_size, "a positive integer")
            self._require("embedding_size", self.model_type == "electra", "None, but for electra")
        for name in _SIZES:
            self._require(name, getattr(self, name) >= 1, "a positive integer")
        for name in _DROPOUTS:
            rate = getattr(self, name)
            self._require(name, rate is None or 0 <= rate < 1, "a probability in [0, 1)")
        self._require("layer_norm_eps", 0 < self.layer_norm_eps < math.inf, "a positive number")
        self._require(
            "initializer_range", 0 < self.initializer_range < math.inf, "a positive number"
        )
        self._require(
            "pad_token_id",
            0 <= self.pad_token_id < self.vocab_size,
            f"a token below vocab_size, {self.vocab_size}",
        )
        self._require(
            "hidden_size",
            self.hidden_size % self.num_attention_heads == 0,
            f"a multiple of num_attention_heads, {self.num_attention_heads}",
        )
        if self.model_type == "distilbert":
            self._require("type_vocab_size", self.type_vocab_size == 0, "0 for distilbert")
        else:
            self._require("type_vocab_size", self.type_vocab_size >= 1, "a positive integer")
        self._require(
            "max_position_embeddings", self.max_length >= 1, f"more than {self.first_position}"
        )

    def _require(self, name: str, is_valid: bool, expected: str) -> None:
        if not is_valid:
            msg = f"{name} is {getattr(self, name)!r}; expected {expected}"
            raise ValueError(msg)

    @property
    def embedded_size(self) -> int:
        """Size of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def first_position(self) -> int:
        """Row of the position table for the first token of a text."""
        return self.pad_token_id + 1 if self.model_type in ROBERTA_TYPES else 0

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self.max_position_embeddings - self.first_position

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


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
