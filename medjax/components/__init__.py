"""Ready components: models with the preprocessing and the optimizer they are trained with."""

from medjax.components.token_classification import TokenClassification as TokenClassification
