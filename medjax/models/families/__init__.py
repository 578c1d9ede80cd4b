"""The families of encoders, a folder for each; no family knows another."""

from collections.abc import Mapping
from types import MappingProxyType

from medjax.models.config import EncoderConfig
from medjax.models.families.base import Family, TensorName
from medjax.models.families.bert import BERT_FAMILIES, BertConfig
from medjax.models.families.deberta import DEBERTA_FAMILIES, DebertaV2Config
from medjax.models.families.modernbert import MODERNBERT_FAMILIES, ModernBertConfig

__all__ = [
    "FAMILIES",
    "BertConfig",
    "DebertaV2Config",
    "Family",
    "ModernBertConfig",
    "TensorName",
    "family_of",
]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {**BERT_FAMILIES, **DEBERTA_FAMILIES, **MODERNBERT_FAMILIES}
)
"""The families by `model_type`."""


def family_of(config: EncoderConfig) -> Family:
    """Return the family that a configuration belongs to."""
    return FAMILIES[config.model_type]
