"""Ready-made components: models with their data preparation, to be trained as they are."""

from medjax.components.documents import DocumentWindow
from medjax.components.loading import LoadedComponent, ReadyComponent, load_component
from medjax.components.lora import Lora
from medjax.components.losses import ClassificationLoss, balanced_weights
from medjax.components.relation_classification import NO_RELATION, RelationClassification
from medjax.components.text_classification import TextClassification, TextPrediction
from medjax.components.token_classification import TokenClassification
from medjax.components.unreachable import Unreachable

__all__ = [
    "NO_RELATION",
    "ClassificationLoss",
    "DocumentWindow",
    "LoadedComponent",
    "Lora",
    "ReadyComponent",
    "RelationClassification",
    "TextClassification",
    "TextPrediction",
    "TokenClassification",
    "Unreachable",
    "balanced_weights",
    "load_component",
]
