"""DeBERTa-v2 and DeBERTa-v3."""

from medjax.models.families.deberta.config import DebertaV2Config
from medjax.models.families.deberta.names import DEBERTA_FAMILIES

__all__ = ["DEBERTA_FAMILIES", "DebertaV2Config"]
