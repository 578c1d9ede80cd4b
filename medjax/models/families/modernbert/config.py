"""ModernBertConfig: the sizes and settings of a ModernBERT."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from medjax.models.config import EncoderConfig

__all__ = ["FULL", "SLIDING", "ModernBertConfig", "from_json", "to_json"]

FULL, SLIDING = "full_attention", "sliding_attention"

_EVERY = 3  # the first of so many layers attends to all tokens, if config.json does not say


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModernBertConfig(EncoderConfig):
    """Sizes and settings of a ModernBERT.

    Attributes
    ----------
    layer_types : tuple of str
        ``"full_attention"`` or ``"sliding_attention"`` for each layer; if empty, every third layer
        attends to all tokens, beginning with the first.
    local_attention : int
        Tokens that a token attends to in other layers: half of them, rounded down, on each side.
    global_rope_theta, local_rope_theta : float
        Base of the rotary frequencies in layers of the two types.
    hidden_activation, classifier_activation : str
        Activation functions of the gated feed-forward layers and of the head.
    norm_eps : float
        Added to the variance in LayerNorm.
    norm_bias, attention_bias, mlp_bias, classifier_bias : bool
        Whether LayerNorms and dense layers have biases.
    embedding_dropout, attention_dropout, mlp_dropout, classifier_dropout : float
        Probabilities of dropping a value of the embeddings; an attention probability and a value of
        the attention's output; an inner value of a feed-forward layer; and an input of a
        classifier.
    classifier_pooling : {"cls", "mean"}
        What is classified of a text: its first token or the mean of its tokens.
    model_type, vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size
        See `EncoderConfig`, as for `max_position_embeddings`, `pad_token_id` and
        `initializer_range`.

    Raises
    ------
    ValueError
        If a field is out of range or two fields contradict each other.

    Examples
    --------
    >>> config = ModernBertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=4,
    ...     num_attention_heads=4, intermediate_size=48)
    >>> [config.is_local(layer) for layer in range(4)]
    [False, True, True, False]
    """

    model_type: str = "modernbert"
    max_position_embeddings: int = 8192
    layer_types: tuple[str, ...] = ()
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    hidden_activation: str = "gelu"
    classifier_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    embedding_dropout: float = 0.0
    attention_dropout: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float = 0.0
    classifier_pooling: str = "cls"

    model_types: ClassVar[frozenset[str]] = frozenset({"modernbert"})
    sizes: ClassVar[tuple[str, ...]] = (*EncoderConfig.sizes, "local_attention")
    rates: ClassVar[tuple[str, ...]] = (
        "embedding_dropout",
        "attention_dropout",
        "mlp_dropout",
        "classifier_dropout",
    )
    scales: ClassVar[tuple[str, ...]] = (
        "initializer_range",
        "norm_eps",
        "global_rope_theta",
        "local_rope_theta",
    )
    activations: ClassVar[tuple[str, ...]] = ("hidden_activation", "classifier_activation")

    def __post_init__(self) -> None:
        """Check every field."""
        super().__post_init__()
        for name in self.rates:
            self._require(name, getattr(self, name) is not None, "a probability in [0, 1)")
        for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"):
            self._require(name, isinstance(getattr(self, name), bool), "True or False")
        self._require_one_of("classifier_pooling", ("cls", "mean"))
        self._require("hidden_size", self.head_size % 2 == 0, "an even number for each head")
        layers = self.layer_types
        is_known = isinstance(layers, tuple) and all(kind in (FULL, SLIDING) for kind in layers)
        is_known = is_known and len(layers) in (0, self.num_hidden_layers)
        self._require("layer_types", is_known, f"{FULL} or {SLIDING} for each layer")

    def is_local(self, layer: int) -> bool:
        """Return whether a layer attends to tokens nearby only."""
        return (self.layer_types[layer] == SLIDING) if self.layer_types else layer % _EVERY > 0

    @property
    def reach(self) -> int:
        """Distance in tokens up to which local layers attend."""
        return self.local_attention // 2

    @property
    def classifier_range(self) -> float:
        """Standard deviation of a new classifier's kernel.

        Source: ``final_out`` in `ModernBertPreTrainedModel._init_weights` of transformers 5.
        """
        return float(self.hidden_size**-0.5)


def from_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a config.json with the fields of `ModernBertConfig`.

    transformers 5 writes the types of all layers and ``rope_parameters`` for each type, version 4
    every how many layers one attends to all tokens, and two bases.

    Raises
    ------
    ValueError
        If it describes rotary embeddings other than the plain ones.
    """
    fields = dict(content)
    if fields.get("rope_scaling") is not None:
        msg = f"rope_scaling is {fields['rope_scaling']!r:.80}; only plain rotary embeddings are"
        raise ValueError(f"{msg} supported")
    every, nb_layers = fields.get("global_attn_every_n_layers"), fields.get("num_hidden_layers")
    if fields.get("layer_types") is not None:
        fields["layer_types"] = tuple(fields["layer_types"])
    elif isinstance(every, int) and every >= 1 and isinstance(nb_layers, int):
        # No more than is needed to see that there are not so many.
        kinds = (SLIDING if layer % every else FULL for layer in range(min(nb_layers, 10**4)))
        fields["layer_types"] = tuple(kinds)
    else:
        fields.pop("layer_types", None)
    if fields.get("local_rope_theta", 0) is None:  # then all layers have that of the global ones
        fields["local_rope_theta"] = fields.get("global_rope_theta", 160_000.0)
    for kind, name in ((FULL, "global_rope_theta"), (SLIDING, "local_rope_theta")):
        parameters = (fields.get("rope_parameters") or {}).get(kind) or {}
        if parameters.get("rope_type", "default") != "default":
            rope_type = parameters["rope_type"]
            msg = f"rope_parameters has rope_type {rope_type!r} for {kind}; expected 'default'"
            raise ValueError(msg)
        if "rope_theta" in parameters:
            fields[name] = parameters["rope_theta"]
    return fields


def to_json(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a `ModernBertConfig` as transformers 5 has them."""
    content = dict(fields)
    thetas = content.pop("global_rope_theta"), content.pop("local_rope_theta")
    content["rope_parameters"] = {
        kind: {"rope_type": "default", "rope_theta": theta}
        for kind, theta in zip((FULL, SLIDING), thetas, strict=True)
    }
    if not content["layer_types"]:
        del content["layer_types"]
    return content
