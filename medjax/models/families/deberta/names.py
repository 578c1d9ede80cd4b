"""Hugging Face's names for the parts of DeBERTa-v2 and v3."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from medjax.models.families.base import Family, TensorName, tensors_of
from medjax.models.families.deberta.config import (
    C2P,
    P2C,
    DebertaV2Config,
    from_json,
    to_json,
)
from medjax.models.families.deberta.encoder import DebertaV2Encoder
from medjax.models.families.deberta.heads import TextHead, TokenHead

__all__ = ["DEBERTA_FAMILIES"]

_LAYERS = "encoder.layer"
_LAYER = (
    ("attention/query", "attention.self.query_proj", "dense"),
    ("attention/key", "attention.self.key_proj", "dense"),
    ("attention/value", "attention.self.value_proj", "dense"),
    ("attention/output", "attention.output.dense", "dense"),
    ("attention_norm", "attention.output.LayerNorm", "norm"),
    ("intermediate", "intermediate.dense", "dense"),
    ("output", "output.dense", "dense"),
    ("output_norm", "output.LayerNorm", "norm"),
)
_OWN_PROJECTIONS = MappingProxyType(
    {
        C2P: ("attention/position_key", "attention.self.pos_key_proj", "dense"),
        P2C: ("attention/position_query", "attention.self.pos_query_proj", "dense"),
    }
)


def _embeddings(config: DebertaV2Config) -> list[tuple[str, str, str]]:
    names = ["word_embeddings"]
    if config.position_biased_input:
        names.append("position_embeddings")
    if config.has_token_types:
        names.append("token_type_embeddings")
    modules = [(f"embeddings/{name}", f"embeddings.{name}", "embedding") for name in names]
    if config.embedded_size != config.hidden_size:
        projection = ("embeddings/projection", "embeddings.embed_proj", "dense without bias")
        modules.append(projection)
    return [*modules, ("embeddings/norm", "embeddings.LayerNorm", "norm")]


def _layer(config: DebertaV2Config) -> list[tuple[str, str, str]]:
    has_own = config.relative_attention and not config.share_att_key
    own = [_OWN_PROJECTIONS[kind] for kind in config.pos_att_type if has_own]
    return [*_LAYER, *own]


def _encoder_tensors(config: DebertaV2Config) -> list[TensorName]:
    modules = _embeddings(config)
    if config.relative_attention:
        modules.append(("rel_embeddings", "encoder.rel_embeddings", "embedding"))
    if config.norm_rel_ebd == "layer_norm":
        modules.append(("rel_norm", "encoder.LayerNorm", "norm"))
    if config.conv_kernel_size > 0:
        # Its kernel has three axes, which torch stores in reverse order as well.
        modules.append(("conv", "encoder.conv.conv", "dense"))
        modules.append(("conv/norm", "encoder.conv.LayerNorm", "norm"))
    for index in range(config.num_hidden_layers):
        for path, name, kind in _layer(config):
            modules.append((f"layer_{index}/{path}", f"{_LAYERS}.{index}.{name}", kind))
    return tensors_of((f"encoder/{path}", name, kind) for path, name, kind in modules)


def _token_tensors(_: DebertaV2Config) -> list[TensorName]:
    return tensors_of([("classifier", "classifier", "dense")], is_of_encoder=False)


def _text_tensors(_: DebertaV2Config) -> list[TensorName]:
    modules = [("head/dense", "pooler.dense", "dense"), ("classifier", "classifier", "dense")]
    return tensors_of(modules, is_of_encoder=False)


DEBERTA_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "deberta-v2": Family(
            stem="DebertaV2",
            prefix="deberta",
            layers=_LAYERS,
            config=DebertaV2Config,
            encoder=DebertaV2Encoder,
            token_head=TokenHead,
            text_head=TextHead,
            tensors=_encoder_tensors,
            token_tensors=_token_tensors,
            text_tensors=_text_tensors,
            defaults=MappingProxyType({"pad_token_id": 0}),
            from_json=from_json,
            to_json=to_json,
        )
    }
)
"""The families by `model_type`."""
