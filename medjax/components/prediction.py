"""Predict the entities of new texts with a tagger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from medjax.batch import BatchData
from medjax.component import Collate, Variables
from medjax.components.documents import DocumentReader
from medjax.components.rows import prediction_ladder
from medjax.components.windows import Window
from medjax.data.ladder import fix_shape
from medjax.metrics import GOLD, IGNORED
from medjax.text import Entity
from medjax.text.alignment import Word
from medjax.text.tagging import tags_to_spans

__all__ = ["predict_entities"]

_softmax = jax.jit(jax.nn.softmax)  # one program for each shape, where each operation has its own


def predict_entities(
    predict_step: Callable[[Variables, BatchData], BatchData],
    variables: Variables,
    texts: Sequence[str],
    *,
    reader: DocumentReader,
    collate: Collate,
    tags: Sequence[str],
    batch_size: int,
    rule: str,
) -> list[tuple[Entity, ...]]:
    """Return the entities of each text; see `TokenClassification.predictor`."""
    readings, ladder = reader.read(texts), prediction_ladder(reader.max_length)
    probabilities = [np.zeros((len(r.words), len(tags)), np.float32) for r in readings]
    windows = [(number, w) for number, reading in enumerate(readings) for w in reading.windows]
    # Sorted by length, so that the windows of a batch need little padding.
    windows.sort(key=lambda pair: len(pair[1].ids))
    for first in range(0, len(windows), batch_size):
        group = windows[first : first + batch_size]
        batch = collate([_unlabelled(window) for _, window in group])
        outputs = predict_step(variables, fix_shape(batch, ladder, batch_size))
        tokens = np.asarray(_softmax(outputs["logits"]))
        for (number, window), of_tokens in zip(group, tokens, strict=False):
            words = slice(window.first_word, window.stop_word)
            probabilities[number][words] = of_tokens[window.positions]
    return [
        _entities(reading.words, of_words, tags, rule)
        for reading, of_words in zip(readings, probabilities, strict=True)
    ]


def _unlabelled(window: Window) -> dict[str, Any]:
    return {"input_ids": window.ids, "labels": [IGNORED] * len(window.ids), GOLD: None}


def _entities(
    words: Sequence[Word], probabilities: np.ndarray, tags: Sequence[str], rule: str
) -> tuple[Entity, ...]:
    best = [tags[number] for number in probabilities.argmax(-1)]
    return tuple(
        Entity(
            label,
            words[first].start,
            words[stop - 1].end,
            float(probabilities[first:stop].max(-1).mean()),
        )
        for label, first, stop in tags_to_spans(best, rule)
    )
