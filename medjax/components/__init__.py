"""Ready-made components: models with their data preparation, to be trained as they are."""

from medjax.components.documents import DocumentWindow as DocumentWindow
from medjax.components.token_classification import TokenClassification as TokenClassification
from medjax.components.unreachable import Unreachable as Unreachable
