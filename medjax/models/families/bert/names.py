"""Hugging Face's names for the parts of BERT and the models that are built like it.

Every name occurs once; `medjax.models.huggingface` uses the tables to read and to write.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn

from medjax.models.activations import gelu
from medjax.models.families.base import Family, TensorName, tensors_of
from medjax.models.families.bert.config import BertConfig
from medjax.models.families.bert.encoder import BertEncoder
from medjax.models.families.bert.heads import TextHead, TokenHead
from medjax.models.layers import HeadFactory

__all__ = ["BERT_FAMILIES"]

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
_REQUIRED = MappingProxyType({"position_embedding_type": "absolute", "is_decoder": False})


class _HeadNames(NamedTuple):
    """The names of the two layers of a text classifier's head in checkpoints."""

    dense: str
    classifier: str
    dense_is_of_encoder: bool = False


_POOLER = _HeadNames("pooler.dense", "classifier", dense_is_of_encoder=True)
_DEEP_HEAD = _HeadNames("classifier.dense", "classifier.out_proj")


def _encoder_tensors(
    layers: str, layer_modules: tuple[tuple[str, str, str], ...], config: BertConfig
) -> list[TensorName]:
    modules = []
    if config.embedded_size != config.hidden_size:
        modules.append(("encoder/embeddings/projection", "embeddings_project", "dense"))
    for flax_module, torch_module, kind in _EMBEDDING_MODULES:
        if flax_module != "token_type_embeddings" or config.has_token_types:
            path = f"encoder/embeddings/{flax_module}"
            modules.append((path, f"embeddings.{torch_module}", kind))
    for index in range(config.num_hidden_layers):
        for flax_module, torch_module, kind in layer_modules:
            path = f"encoder/layer_{index}/{flax_module}"
            modules.append((path, f"{layers}.{index}.{torch_module}", kind))
    return tensors_of(modules)


def _token_tensors(_: BertConfig) -> list[TensorName]:
    return tensors_of([("classifier", "classifier", "dense")], is_of_encoder=False)


def _text_tensors(head: _HeadNames, _: BertConfig) -> list[TensorName]:
    dense = [("head/dense", head.dense, "dense")]
    classifier = [("classifier", head.classifier, "dense")]
    return [
        *tensors_of(dense, is_of_encoder=head.dense_is_of_encoder),
        *tensors_of(classifier, is_of_encoder=False),
    ]


def _family(
    stem: str,
    prefix: str,
    text_head: HeadFactory,
    head_names: _HeadNames,
    *,
    fixed_fields: Mapping[str, Any],
    defaults: Mapping[str, Any],
    layers: str = "encoder.layer",
    layer_modules: tuple[tuple[str, str, str], ...] = _BERT_LAYER,
    renamed_fields: Mapping[str, str] = MappingProxyType({}),
) -> Family:
    return Family(
        stem=stem,
        prefix=prefix,
        layers=layers,
        config=BertConfig,
        encoder=BertEncoder,
        token_head=TokenHead,
        text_head=text_head,
        tensors=partial(_encoder_tensors, layers, layer_modules),
        token_tensors=_token_tensors,
        text_tensors=partial(_text_tensors, head_names),
        renamed_fields=renamed_fields,
        fixed_fields=fixed_fields,
        defaults=defaults,
        required=_REQUIRED,
    )


_ONLY_ELSEWHERE = MappingProxyType({"embedding_size": None, "seq_classif_dropout": None})

BERT_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "bert": _family(
            "Bert",
            "bert",
            partial(TextHead, activate=nn.tanh),
            _POOLER,
            fixed_fields=_ONLY_ELSEWHERE,
            defaults={"pad_token_id": 0},
        ),
        "electra": _family(
            "Electra",
            "electra",
            partial(TextHead, activate=gelu, drops_inputs=True),
            _DEEP_HEAD,
            fixed_fields={"seq_classif_dropout": None},
            defaults={"pad_token_id": 0},
        ),
        **{
            model_type: _family(
                stem,
                "roberta",
                partial(TextHead, activate=nn.tanh, drops_inputs=True),
                _DEEP_HEAD,
                fixed_fields=_ONLY_ELSEWHERE,
                defaults={"pad_token_id": 1},
            )
            for model_type, stem in (
                ("roberta", "Roberta"),
                ("camembert", "Camembert"),
                ("xlm-roberta", "XLMRoberta"),
            )
        },
        "distilbert": _family(
            "DistilBert",
            "distilbert",
            partial(TextHead, activate=nn.relu),
            _HeadNames("pre_classifier", "classifier"),
            fixed_fields={
                "type_vocab_size": 0,
                "layer_norm_eps": 1e-12,
                "classifier_dropout": None,
                "embedding_size": None,
            },
            defaults={"pad_token_id": 0, "seq_classif_dropout": 0.2},
            layers="transformer.layer",
            layer_modules=_DISTILBERT_LAYER,
            renamed_fields=_DISTILBERT_FIELDS,
        ),
    }
)
"""The families by `model_type`."""
