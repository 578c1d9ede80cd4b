"""Hugging Face's names for the parts of a ModernBERT."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from medjax.models.families.base import Family, TensorName, tensors_of
from medjax.models.families.modernbert.config import ModernBertConfig, from_json, to_json
from medjax.models.families.modernbert.encoder import ModernBertEncoder
from medjax.models.families.modernbert.heads import TextHead, TokenHead

__all__ = ["MODERNBERT_FAMILIES"]


def _dense(has_bias: bool) -> str:
    return "dense" if has_bias else "dense without bias"


def _norm(config: ModernBertConfig) -> str:
    return "norm" if config.norm_bias else "norm without bias"


def _encoder_tensors(config: ModernBertConfig) -> list[TensorName]:
    attention, inner, norm = _dense(config.attention_bias), _dense(config.mlp_bias), _norm(config)
    modules = [
        ("encoder/embeddings/word_embeddings", "embeddings.tok_embeddings", "embedding"),
        ("encoder/embeddings/norm", "embeddings.norm", norm),
        ("encoder/final_norm", "final_norm", norm),
    ]
    for index in range(config.num_hidden_layers):
        layer, stored = f"encoder/layer_{index}", f"layers.{index}"
        if index > 0:  # the embeddings are normalised already
            modules.append((f"{layer}/attention_norm", f"{stored}.attn_norm", norm))
        modules += [
            (f"{layer}/attention/query_key_value", f"{stored}.attn.Wqkv", attention),
            (f"{layer}/attention/output", f"{stored}.attn.Wo", attention),
            (f"{layer}/intermediate_norm", f"{stored}.mlp_norm", norm),
            (f"{layer}/intermediate", f"{stored}.mlp.Wi", inner),
            (f"{layer}/output", f"{stored}.mlp.Wo", inner),
        ]
    return tensors_of(modules)


def _head_tensors(config: ModernBertConfig) -> list[TensorName]:
    modules = [
        ("head/dense", "head.dense", _dense(config.classifier_bias)),
        ("head/norm", "head.norm", _norm(config)),
        ("classifier", "classifier", "dense"),
    ]
    return tensors_of(modules, is_of_encoder=False)


MODERNBERT_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "modernbert": Family(
            stem="ModernBert",
            prefix="model",
            layers="layers",
            config=ModernBertConfig,
            encoder=ModernBertEncoder,
            token_head=TokenHead,
            text_head=TextHead,
            tensors=_encoder_tensors,
            token_tensors=_head_tensors,
            text_tensors=_head_tensors,
            defaults={"pad_token_id": 50283, "classifier_dropout": 0.0},
            from_json=from_json,
            to_json=to_json,
        )
    }
)
"""The family by `model_type`."""
