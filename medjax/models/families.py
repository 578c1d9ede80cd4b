"""Hugging Face's names for the parts of an encoder, in a table for each family.

Every name occurs once; `medjax.models.huggingface` uses the tables to read and to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from medjax.models.config import EncoderConfig

__all__ = [
    "FAMILIES",
    "Family",
    "TensorName",
    "TextHead",
    "encoder_tensors",
    "text_head_tensors",
    "token_head_tensors",
]

_LEAVES: Mapping[str, tuple[tuple[str, str, bool], ...]] = MappingProxyType(
    {
        "embedding": (("embedding", "weight", False),),
        "norm": (("scale", "weight", False), ("bias", "bias", False)),
        # torch stores the weight of a Linear as (outputs, inputs), Flax as (inputs, outputs).
        "dense": (("kernel", "weight", True), ("bias", "bias", False)),
    }
)
"""For each kind of module: (Flax parameter, torch parameter, whether it is transposed)."""

_EMBEDDING_MODULES = (
    ("word_embeddings", "word_embeddings", "embedding"),
    ("position_embeddings", "position_embeddings", "embedding"),
    ("token_type_embeddings", "token_type_embeddings", "embedding"),
    ("norm", "LayerNorm", "norm"),
)
_BERT_LAYER = (
    ("attention/query", "attention.self.query", "dense"),
    ("attention/key", "attention.self.key", "dense"),
    ("attention/value", "attention.self.value", "dense"),
    ("attention/output", "attention.output.dense", "dense"),
    ("attention_norm", "attention.output.LayerNorm", "norm"),
    ("intermediate", "intermediate.dense", "dense"),
    ("output", "output.dense", "dense"),
    ("output_norm", "output.LayerNorm", "norm"),
)
_DISTILBERT_LAYER = (
    ("attention/query", "attention.q_lin", "dense"),
    ("attention/key", "attention.k_lin", "dense"),
    ("attention/value", "attention.v_lin", "dense"),
    ("attention/output", "attention.out_lin", "dense"),
    ("attention_norm", "sa_layer_norm", "norm"),
    ("intermediate", "ffn.lin1", "dense"),
    ("output", "ffn.lin2", "dense"),
    ("output_norm", "output_layer_norm", "norm"),
)
_DISTILBERT_FIELDS = MappingProxyType(
    {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    }
)


_ONLY_ELSEWHERE: Mapping[str, float | None] = MappingProxyType(
    {"embedding_size": None, "seq_classif_dropout": None}
)


class TextHead(NamedTuple):
    """The names of a text classifier's head in checkpoints.

    Attributes
    ----------
    pooler : str
        The dense layer on the first token.
    classifier : str
        The layer that gives the logits.
    pooler_is_of_encoder : bool
        Whether the pooler is stored as a part of the encoder, which base models have, too.
    """

    pooler: str
    classifier: str
    pooler_is_of_encoder: bool = False


_BERT_HEAD = TextHead("pooler.dense", "classifier", pooler_is_of_encoder=True)
_DEEPER_HEAD = TextHead("classifier.dense", "classifier.out_proj")


class Family(NamedTuple):
    """The names used in checkpoints of one `model_type`.

    Attributes
    ----------
    stem : str
        What the names of its classes in transformers begin with.
    prefix : str
        Prefix of the encoder's tensors in a task model, without the dot.
    layers : str
        Prefix of the tensors of layer N, before ``.N``.
    layer_modules : tuple
        (Flax module, torch module, kind) of the modules of a layer.
    renamed_fields : Mapping
        Fields of `EncoderConfig` that have another name in config.json, with that name.
    fixed_fields : Mapping
        Fields of `EncoderConfig` that config.json does not have, with their only value.
    defaults : Mapping
        Fields of `EncoderConfig` that transformers gives another value if config.json has none.
    text_head : TextHead
        Names of the text classifier's head.
    """

    stem: str
    prefix: str
    layers: str = "encoder.layer"
    layer_modules: tuple[tuple[str, str, str], ...] = _BERT_LAYER
    renamed_fields: Mapping[str, str] = MappingProxyType({})
    fixed_fields: Mapping[str, float | None] = _ONLY_ELSEWHERE
    defaults: Mapping[str, float] = MappingProxyType({"pad_token_id": 0})
    text_head: TextHead = _BERT_HEAD


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": Family("Bert", "bert"),
        "electra": Family(
            "Electra",
            "electra",
            fixed_fields=MappingProxyType({"seq_classif_dropout": None}),
            text_head=_DEEPER_HEAD,
        ),
        **{
            model_type: Family(
                stem,
                "roberta",
                defaults=MappingProxyType({"pad_token_id": 1}),
                text_head=_DEEPER_HEAD,
            )
            for model_type, stem in (
                ("roberta", "Roberta"),
                ("camembert", "Camembert"),
                ("xlm-roberta", "XLMRoberta"),
            )
        },
        "distilbert": Family(
            "DistilBert",
            "distilbert",
            text_head=TextHead("pre_classifier", "classifier"),
            layers="transformer.layer",
            layer_modules=_DISTILBERT_LAYER,
            renamed_fields=_DISTILBERT_FIELDS,
            fixed_fields=MappingProxyType(
                {
                    "type_vocab_size": 0,
                    "layer_norm_eps": 1e-12,
                    "classifier_dropout": None,
                    "embedding_size": None,
                }
            ),
            defaults=MappingProxyType({"pad_token_id": 0, "seq_classif_dropout": 0.2}),
        ),
    }
)
"""The families by `model_type`."""


class TensorName(NamedTuple):
    """The name of a parameter in medjax and in checkpoints.

    Attributes
    ----------
    path : tuple of str
        Path in the parameters of a `TokenClassifier` or `TextClassifier`.
    name : str
        Name in a checkpoint, without the family's prefix.
    transposed : bool
        Whether its two axes are swapped in a checkpoint.
    is_of_encoder : bool
        Whether its name in a task model has the family's prefix.
    """

    path: tuple[str, ...]
    name: str
    transposed: bool
    is_of_encoder: bool


def _module_tensors(
    flax_module: str, torch_module: str, kind: str, *, is_of_encoder: bool = True
) -> Iterator[TensorName]:
    for flax_leaf, torch_leaf, transposed in _LEAVES[kind]:
        path = (*flax_module.split("/"), flax_leaf)
        yield TensorName(path, f"{torch_module}.{torch_leaf}", transposed, is_of_encoder)


def encoder_tensors(config: EncoderConfig) -> list[TensorName]:
    """Return the names of all parameters of an encoder.

    Parameters
    ----------
    config : EncoderConfig
        The encoder's configuration.
    """
    family = FAMILIES[config.model_type]
    tensors: list[TensorName] = []
    if config.embedded_size != config.hidden_size:
        tensors += _module_tensors("encoder/embeddings/projection", "embeddings_project", "dense")
    for flax_module, torch_module, kind in _EMBEDDING_MODULES:
        if flax_module != "token_type_embeddings" or config.type_vocab_size > 0:
            tensors += _module_tensors(
                f"encoder/embeddings/{flax_module}", f"embeddings.{torch_module}", kind
            )
    for index in range(config.num_hidden_layers):
        for flax_module, torch_module, kind in family.layer_modules:
            tensors += _module_tensors(
                f"encoder/layer_{index}/{flax_module}",
                f"{family.layers}.{index}.{torch_module}",
                kind,
            )
    return tensors


def token_head_tensors(_: EncoderConfig) -> list[TensorName]:
    """Return the names of the parameters of a token classifier's head, the same for all families.

    Examples
    --------
    >>> config = EncoderConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> [tensor.name for tensor in token_head_tensors(config)]
    ['classifier.weight', 'classifier.bias']
    """
    return list(_module_tensors("classifier", "classifier", "dense", is_of_encoder=False))


def text_head_tensors(config: EncoderConfig) -> list[TensorName]:
    """Return the names of the parameters of a text classifier's head, pooler first.

    Parameters
    ----------
    config : EncoderConfig
        The encoder's configuration.

    Examples
    --------
    >>> config = EncoderConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> [tensor.name for tensor in text_head_tensors(config)][::2]
    ['pooler.dense.weight', 'classifier.weight']
    """
    head = FAMILIES[config.model_type].text_head
    pooler = _module_tensors(
        "pooler", head.pooler, "dense", is_of_encoder=head.pooler_is_of_encoder
    )
    classifier = _module_tensors("classifier", head.classifier, "dense", is_of_encoder=False)
    return [*pooler, *classifier]
