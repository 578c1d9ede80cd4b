"""What a family of encoders tells the rest of medjax."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from medjax.models.config import EncoderConfig
from medjax.models.layers import HeadFactory

__all__ = ["Family", "TensorName", "tensors_of"]

_LEAVES: Mapping[str, tuple[tuple[str, str, bool], ...]] = MappingProxyType(
    {
        "embedding": (("embedding", "weight", False),),
        "norm": (("scale", "weight", False), ("bias", "bias", False)),
        "norm without bias": (("scale", "weight", False),),
        # torch stores the weight of a Linear as (outputs, inputs), Flax as (inputs, outputs).
        "dense": (("kernel", "weight", True), ("bias", "bias", False)),
        "dense without bias": (("kernel", "weight", True),),
    }
)
"""For each kind of module: (Flax parameter, torch parameter, whether its axes are reversed)."""


class TensorName(NamedTuple):
    """The name of a parameter in medjax and in checkpoints.

    Attributes
    ----------
    path : tuple of str
        Path in the parameters of a `TokenClassifier` or `TextClassifier`.
    name : str
        Name in a checkpoint, without the family's prefix.
    transposed : bool
        Whether its axes are in reverse order in a checkpoint.
    is_of_encoder : bool
        Whether its name in a task model has the family's prefix.
    """

    path: tuple[str, ...]
    name: str
    transposed: bool
    is_of_encoder: bool


def tensors_of(
    modules: Iterable[tuple[str, str, str]], *, is_of_encoder: bool = True
) -> list[TensorName]:
    """Return the names of the parameters of modules.

    Parameters
    ----------
    modules : iterable of (str, str, str)
        Path of the Flax module with slashes, name of the torch module, and kind: ``"dense"``,
        ``"norm"`` (both also with ``" without bias"``) or ``"embedding"``.
    is_of_encoder : bool
        See `TensorName`.

    Examples
    --------
    >>> [tensor.name for tensor in tensors_of([("classifier", "score", "dense")])]
    ['score.weight', 'score.bias']
    """
    return [
        TensorName(
            (*flax_module.split("/"), flax_leaf),
            f"{torch_module}.{torch_leaf}",
            transposed,
            is_of_encoder,
        )
        for flax_module, torch_module, kind in modules
        for flax_leaf, torch_leaf, transposed in _LEAVES[kind]
    ]


class Family(NamedTuple):
    """The encoder, the heads and the names in checkpoints of one `model_type`.

    Attributes
    ----------
    stem : str
        What the names of its classes in transformers begin with.
    prefix : str
        Prefix of the encoder's tensors in a task model, without the dot.
    layers : str
        Prefix of the tensors of layer N, before ``.N``.
    config : type
        Class of its configuration.
    encoder : callable
        Returns the Flax module, with the arguments of `make_encoder`.
    token_head, text_head : callable
        What stands between the encoder and the classifier of each token, and of a text.
    tensors : callable
        ``tensors(config)`` returns the names of the encoder's parameters.
    token_tensors, text_tensors : callable
        The same for the heads, with their classifiers.
    renamed_fields : Mapping
        Fields of its configuration that have another name in config.json, with that name.
    fixed_fields : Mapping
        Fields of its configuration that config.json does not have, with their only value.
    defaults : Mapping
        Fields of its configuration that transformers gives another value if config.json has none.
    required : Mapping
        Fields of config.json that change what is computed, with the only supported value.
    from_json, to_json : callable
        Return the fields of config.json in the form that the configuration has them in, and back.
    """

    stem: str
    prefix: str
    layers: str
    config: type[EncoderConfig]
    encoder: Callable[..., Any]
    token_head: HeadFactory
    text_head: HeadFactory
    tensors: Callable[[Any], list[TensorName]]
    token_tensors: Callable[[Any], list[TensorName]]
    text_tensors: Callable[[Any], list[TensorName]]
    renamed_fields: Mapping[str, str] = MappingProxyType({})
    fixed_fields: Mapping[str, Any] = MappingProxyType({})
    defaults: Mapping[str, Any] = MappingProxyType({})
    required: Mapping[str, Any] = MappingProxyType({})
    from_json: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
    to_json: Callable[[Mapping[str, Any]], dict[str, Any]] = dict
