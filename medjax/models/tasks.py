"""The tasks that an encoder gets a head for, and how checkpoints name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from medjax.models.config import EncoderConfig
from medjax.models.families import Family, TensorName, family_of
from medjax.models.heads import Classifier, TextClassifier, TokenClassifier

__all__ = ["TEXT_CLASSIFICATION", "TOKEN_CLASSIFICATION", "Task"]


class Task(NamedTuple):
    """What a model classifies.

    Attributes
    ----------
    name : str
        What the names of its classes in transformers end with, after ``For``.
    model : type
        The Flax module.
    tensors_of : callable
        ``tensors_of(family)(config)`` returns the names of the parameters of its head.
    """

    name: str
    model: type[Classifier]
    tensors_of: Callable[[Family], Callable[[EncoderConfig], list[TensorName]]]

    def head_tensors(self, config: EncoderConfig) -> list[TensorName]:
        """Return the names of the parameters of the head, with its classifier."""
        return self.tensors_of(family_of(config))(config)


TOKEN_CLASSIFICATION = Task(
    "TokenClassification", TokenClassifier, lambda family: family.token_tensors
)
TEXT_CLASSIFICATION = Task(
    "SequenceClassification", TextClassifier, lambda family: family.text_tensors
)
