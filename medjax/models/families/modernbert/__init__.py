"""ModernBERT."""

from medjax.models.families.modernbert.config import ModernBertConfig
from medjax.models.families.modernbert.names import MODERNBERT_FAMILIES

__all__ = ["MODERNBERT_FAMILIES", "ModernBertConfig"]
