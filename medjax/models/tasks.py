"""The tasks that an encoder gets a head for, and how checkpoints name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from medjax.models.config import EncoderConfig
from medjax.models.families import TensorName, text_head_tensors, token_head_tensors
from medjax.models.heads import TextClassifier, TokenClassifier

__all__ = ["TEXT_CLASSIFICATION", "TOKEN_CLASSIFICATION", "Task"]


class Task(NamedTuple):
    """What a model classifies.

    Attributes
    ----------
    name : str
        What the names of its classes in transformers end with, after ``For``.
    model : type
        The Flax module.
    head_tensors : callable
        ``head_tensors(config)`` returns the names of the head's parameters.
    """

    name: str
    model: Callable[..., Any]
    head_tensors: Callable[[EncoderConfig], list[TensorName]]


TOKEN_CLASSIFICATION = Task("TokenClassification", TokenClassifier, token_head_tensors)
TEXT_CLASSIFICATION = Task("SequenceClassification", TextClassifier, text_head_tensors)
