"""DebertaV2Config: the sizes and settings of DeBERTa-v2 and v3."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from medjax.models.config import EncoderConfig

__all__ = ["C2P", "P2C", "DebertaV2Config", "from_json", "to_json"]

C2P, P2C = "c2p", "p2c"
"""Attention of contents to relative positions, and of positions to contents."""

_FURTHEST = 2**30 - 1  # distance; there are twice as many embeddings, which int32 numbers
_WIDEST = 255  # tokens of a convolution


@dataclasses.dataclass(frozen=True, kw_only=True)
class DebertaV2Config(EncoderConfig):
    """Sizes and settings of a DeBERTa-v2 or v3, named as in transformers.

    Attributes
    ----------
    max_position_embeddings : int
        Longest input in tokens.
    type_vocab_size : int
        Number of token types; 0 for none.
    embedding_size : int or None
        Size of the embeddings, from which a dense layer goes to `hidden_size` if it is another
        one; None means `hidden_size`.
    position_biased_input : bool
        Whether absolute positions are added to the embeddings.
    relative_attention : bool
        Whether attention depends on relative positions.
    pos_att_type : tuple of str
        How it does: ``"c2p"``, ``"p2c"`` or both. Attention scores are divided by the square root
        of the head size times one more than their number, even without `relative_attention`.
    share_att_key : bool
        Whether positions have the projections of contents instead of their own.
    max_relative_positions : int
        Distance from which all are the same; `max_position_embeddings` if it is less than 1.
    position_buckets : int
        Number of buckets that the distances to either side are sorted into, the far ones by their
        logarithm; without buckets if it is less than 1.
    norm_rel_ebd : {"none", "layer_norm"}
        Whether the embeddings of relative positions are normalised.
    conv_kernel_size, conv_groups, conv_act : int, int, str
        The convolution beside the first layer: number of tokens, an odd one (0 for no
        convolution), number of groups, and activation function.
    hidden_act : str
        Activation function of the feed-forward layers.
    layer_norm_eps : float
        Added to the variance in LayerNorm.
    hidden_dropout_prob, attention_probs_dropout_prob : float
        Probabilities of dropping a hidden value and an attention probability.
    pooler_dropout, pooler_hidden_act : float, str
        Dropout before the dense layer of a text classifier, and the activation function after it.
    cls_dropout : float or None
        Probability of dropping an input of a text classifier; `hidden_dropout_prob` if None.
    attention_head_size, pooler_hidden_size : int or None
        None, or the only supported value: ``hidden_size / num_attention_heads``, `hidden_size`.
    model_type, vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size
        See `EncoderConfig`, as for `pad_token_id` and `initializer_range`.

    Raises
    ------
    ValueError
        If a field is out of range or two fields contradict each other.

    Examples
    --------
    >>> config = DebertaV2Config(vocab_size=100, hidden_size=32, num_hidden_layers=2,
    ...     num_attention_heads=4, intermediate_size=64, relative_attention=True,
    ...     pos_att_type=("c2p", "p2c"), position_buckets=16)
    >>> config.position_span
    16
    """

    model_type: str = "deberta-v2"
    type_vocab_size: int = 0
    embedding_size: int | None = None
    position_biased_input: bool = True
    relative_attention: bool = False
    pos_att_type: tuple[str, ...] = ()
    share_att_key: bool = False
    max_relative_positions: int = -1
    position_buckets: int = -1
    norm_rel_ebd: str = "none"
    conv_kernel_size: int = 0
    conv_groups: int = 1
    conv_act: str = "tanh"
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-7
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    pooler_dropout: float = 0.0
    pooler_hidden_act: str = "gelu"
    cls_dropout: float | None = None
    attention_head_size: int | None = None
    pooler_hidden_size: int | None = None

    model_types: ClassVar[frozenset[str]] = frozenset({"deberta-v2"})
    rates: ClassVar[tuple[str, ...]] = (
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "pooler_dropout",
        "cls_dropout",
    )
    scales: ClassVar[tuple[str, ...]] = ("layer_norm_eps", "initializer_range")
    activations: ClassVar[tuple[str, ...]] = ("hidden_act", "conv_act", "pooler_hidden_act")

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        for name in self.rates[:3]:
            self._require(name, getattr(self, name) is not None, "a probability in [0, 1)")
        for name in ("position_biased_input", "relative_attention", "share_att_key"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        self._require_integer("type_vocab_size", 0, "an integer from 0")
        self._require_only("attention_head_size", self.head_size)
        self._require_only("pooler_hidden_size", self.hidden_size)
        if self.embedding_size is not None:
            self._require_integer("embedding_size", 1, "a positive integer")
        self._check_positions()
        self._check_convolution()

    def _require_only(self, name: str, supported: int) -> None:
        self._require(name, getattr(self, name) in (None, supported), f"{supported} or none")

    def _check_positions(self) -> None:
        kinds = self.pos_att_type
        is_supported = isinstance(kinds, tuple) and len(set(kinds)) == len(kinds)
        is_supported = is_supported and set(kinds) <= {C2P, P2C}
        self._require("pos_att_type", is_supported, f"some of {C2P!r} and {P2C!r}, each once")
        for name in ("max_relative_positions", "position_buckets"):
            self._require_integer(name, -_FURTHEST, "an integer")
        if self.relative_attention:
            is_given = self.max_relative_positions > 0
            limited = "max_relative_positions" if is_given else "max_position_embeddings"
            self._require(limited, self.furthest <= _FURTHEST, f"at most {_FURTHEST:,}")
        self._require_one_of("norm_rel_ebd", {"none", "layer_norm"})
        if self.norm_rel_ebd != "none":
            # transformers makes a LayerNorm that nothing uses.
            self._require("norm_rel_ebd", self.relative_attention, "'none', or relative_attention")
        if self.relative_attention and self.position_buckets > 0:
            most = 2 * (self.furthest - 1)
            is_between = 2 <= self.position_buckets < most
            self._require("position_buckets", is_between, f"-1 for none, or from 2 to {most - 1}")

    def _check_convolution(self) -> None:
        expected = f"0 or an odd number below {_WIDEST + 1}"
        self._require_integer("conv_kernel_size", 0, expected)
        # With an even one, the convolution of transformers is a token shorter than its input.
        is_odd = self.conv_kernel_size % 2 == 1 or self.conv_kernel_size == 0
        self._require("conv_kernel_size", is_odd and self.conv_kernel_size <= _WIDEST, expected)
        expected = f"a number that hidden_size, {self.hidden_size}, is a multiple of"
        self._require_integer("conv_groups", 1, expected)
        self._require("conv_groups", self.hidden_size % self.conv_groups == 0, expected)

    @property
    def embedded_size(self) -> int:
        """Size of the embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def has_token_types(self) -> bool:
        """Whether tokens have types."""
        return self.type_vocab_size > 0

    @property
    def furthest(self) -> int:
        """Distance from which all are the same."""
        if self.max_relative_positions < 1:
            return self.max_position_embeddings
        return self.max_relative_positions

    @property
    def position_span(self) -> int:
        """Half the number of embeddings of relative positions."""
        return self.position_buckets if self.position_buckets > 0 else self.furthest

    @property
    def text_head_dropout(self) -> float:
        """Probability of dropping an input of a text classifier."""
        return self.hidden_dropout_prob if self.cls_dropout is None else self.cls_dropout


def from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a config.json, with `pos_att_type` as a tuple."""
    kinds = content.get("pos_att_type")
    if kinds is None:
        kinds = ()
    elif isinstance(kinds, str):
        kinds = tuple(kind.strip() for kind in kinds.lower().split("|"))
    elif isinstance(kinds, list) and all(isinstance(kind, str) for kind in kinds):
        kinds = tuple(kinds)
    return {**content, "pos_att_type": kinds}


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a configuration as config.json has them."""
    return {**fields, "pos_att_type": list(fields["pos_att_type"])}
