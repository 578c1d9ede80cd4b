"""EncoderConfig: what the configurations of all families of encoders have in common."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import ClassVar

from medjax.models.activations import ACTIVATIONS

__all__ = ["EncoderConfig"]

_LARGEST = 2**31 - 1  # arrays are indexed by int32


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and settings that every encoder has, named as in transformers.

    Each family of encoders has a class of its own, which adds to this one, such as `BertConfig`.

    Attributes
    ----------
    model_type : str
        Name of the model, as config.json has it.
    vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Sizes; `hidden_size` is a multiple of `num_attention_heads`.
    max_position_embeddings : int
        Number of positions that the model was made for.
    pad_token_id : int
        Token that short rows are padded with.
    initializer_range : float
        Standard deviation of newly initialised kernels and embeddings.

    Raises
    ------
    ValueError
        If a field is out of range or two fields contradict each other.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    pad_token_id: int = 0
    initializer_range: float = 0.02

    model_types: ClassVar[frozenset[str]] = frozenset()
    """The values of `model_type` that a family has."""
    sizes: ClassVar[tuple[str, ...]] = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    )
    """Names of the fields that are positive integers."""
    rates: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that are probabilities of dropping something, or None."""
    scales: ClassVar[tuple[str, ...]] = ("initializer_range",)
    """Names of the fields that are positive numbers."""
    activations: ClassVar[tuple[str, ...]] = ()
    """Names of the fields that name an activation function."""

    def __post_init__(self) -> None:
        """Check every field."""
        self._require_one_of("model_type", self.model_types)
        for name in self.activations:
            self._require_one_of(name, ACTIVATIONS)
        for name in self.sizes:
            self._require_integer(name, 1, "a positive integer")
            self._require(name, getattr(self, name) <= _LARGEST, f"at most {_LARGEST:,}")
        for name in self.rates:
            rate = getattr(self, name)
            is_rate = rate is None or (_is_number(rate, numbers.Real) and 0 <= rate < 1)
            self._require(name, is_rate, "a probability in [0, 1)")
        for name in self.scales:
            scale = getattr(self, name)
            is_scale = _is_number(scale, numbers.Real) and 0 < scale < math.inf
            self._require(name, is_scale, "a positive number")
        below = f"a token below vocab_size, {self.vocab_size}"
        self._require_integer("pad_token_id", 0, below)
        self._require("pad_token_id", self.pad_token_id < self.vocab_size, below)
        self._require(
            "hidden_size",
            self.hidden_size % self.num_attention_heads == 0,
            f"a multiple of num_attention_heads, {self.num_attention_heads}",
        )

    def _require_one_of(self, name: str, allowed: object) -> None:
        value = getattr(self, name)
        if not isinstance(value, str) or value not in allowed:  # type: ignore[operator]
            names = ", ".join(sorted(allowed))  # type: ignore[call-overload]
            msg = f"{name} is {value!r}; this encoder supports {names}"
            raise ValueError(msg)

    def _require_integer(self, name: str, least: int, expected: str) -> None:
        value = getattr(self, name)
        self._require(name, _is_number(value, numbers.Integral) and value >= least, expected)

    def _require(self, name: str, is_valid: bool, expected: str) -> None:
        if not is_valid:
            msg = f"{name} is {getattr(self, name)!r}; expected {expected}"
            raise ValueError(msg)

    @property
    def head_size(self) -> int:
        """Size of an attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def max_length(self) -> int:
        """Longest input in tokens, special tokens included."""
        return self.max_position_embeddings

    @property
    def classifier_range(self) -> float:
        """Standard deviation of a new classifier's kernel."""
        return self.initializer_range

    @property
    def has_token_types(self) -> bool:
        """Whether tokens have types."""
        return False

    @property
    def numbers_positions_by_padding(self) -> bool:
        """Whether the position of a token depends on what `pad_token_id` is."""
        return False


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
