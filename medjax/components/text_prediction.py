"""Predict the classes of new texts with a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from medjax.batch import BatchData
from medjax.component import Collate
from medjax.components.rows import check_finite, prediction_ladder
from medjax.components.windows import split_windows
from medjax.data.ladder import fix_shape
from medjax.metrics.classification import class_probabilities
from medjax.models import Tokenizer

__all__ = ["TextPrediction", "predict_classes", "predict_logits", "prediction_of"]

_POOLED: Mapping[str, Callable[[Any], Any]] = {
    "mean": lambda logits: np.mean(logits, axis=0),
    "max": lambda logits: np.max(logits, axis=0),
}


class TextPrediction(NamedTuple):
    """What a classifier says of a text.

    Attributes
    ----------
    labels : tuple of str
        The most probable class; if texts may have several, those whose probability reaches the
        threshold.
    probabilities : dict of str to float
        Probability of each class.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]


def predict_classes(
    predict_step: Callable[[BatchData], BatchData],
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer,
    collate: Collate,
    unlabelled: Mapping[str, Any],
    labels: Sequence[str],
    least: Mapping[str, float] | None,
    pooling: str,
    max_length: int,
    batch_size: int,
) -> list[TextPrediction]:
    """Return the classes of each text; see `TextClassification.predictor`.

    Each window is a row of its own, and pooled as in training. So batches of long texts need no
    more memory, and no more programs, than those of short ones.
    """
    windows = [split_windows(each, (), max_length) for each in tokenizer.encode(texts)]
    rows = [{"input_ids": window.ids, **unlabelled} for each in windows for window in each]
    logits = iter(
        predict_logits(
            predict_step,
            rows,
            collate=collate,
            max_length=max_length,
            batch_size=batch_size,
        )
    )
    pooled = [_POOLED[pooling]([next(logits) for _ in each]) for each in windows]
    return [prediction_of(row, labels, least) for row in pooled]


def predict_logits(
    predict_step: Callable[[BatchData], BatchData],
    examples: Sequence[dict[str, Any]],
    *,
    collate: Collate,
    max_length: int,
    batch_size: int,
) -> list[np.ndarray]:
    """Return the logits of each example, which has one row of tokens."""
    logits: dict[int, np.ndarray] = {}
    ladder = prediction_ladder(max_length)
    # Sorted by length, so that the rows of a batch need little padding.
    order = sorted(range(len(examples)), key=lambda row: len(examples[row]["input_ids"]))
    for first in range(0, len(order), batch_size):
        chosen = order[first : first + batch_size]
        batch = collate([examples[row] for row in chosen])
        fixed = fix_shape(batch, ladder, batch_size)
        outputs: Any = jax.device_get(predict_step(fixed)["logits"])[: len(chosen)]  # not padding
        check_finite(outputs)
        logits.update(zip(chosen, outputs, strict=True))
    return [logits[row] for row in range(len(examples))]


def prediction_of(
    logits: np.ndarray, labels: Sequence[str], least: Mapping[str, float] | None
) -> TextPrediction:
    """Return the classes of a text.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (classes,).
    labels : sequence of str
        Names of the classes.
    least : mapping of str to float, optional
        Least probability of each class; None if a text has exactly one.

    Examples
    --------
    >>> prediction_of(np.array([0.0, 2.0]), ("no", "yes"), None).labels
    ('yes',)
    >>> prediction_of(np.array([0.0, 2.0]), ("no", "yes"), {"no": 0.5, "yes": 0.9}).labels
    ('no',)
    """
    found = class_probabilities(logits[None], multi_label=least is not None)[0]
    probabilities = dict(zip(labels, found.tolist(), strict=True))
    if least is None:
        return TextPrediction((labels[int(logits.argmax())],), probabilities)
    reached = tuple(label for label, p in probabilities.items() if p >= least[label])
    return TextPrediction(reached, probabilities)
