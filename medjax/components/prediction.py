"""Predict the entities of new texts with a tagger."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from medjax.batch import BatchData
from medjax.component import Collate
from medjax.components.documents import DocumentReader, TagLayers
from medjax.components.rows import check_finite, prediction_ladder
from medjax.components.windows import Window
from medjax.data.ladder import fix_shape
from medjax.metrics import GOLD, IGNORED
from medjax.text import Entity
from medjax.text.alignment import Word
from medjax.text.tagging import tags_to_spans

__all__ = ["predict_entities"]


@functools.partial(jax.jit, static_argnums=1)  # otherwise each operation is a program of its own
def _softmax(logits: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Return probabilities, shape (rows, length, layers, tags of a layer)."""
    return jax.nn.softmax(logits.reshape(*logits.shape[:2], *shape))


def predict_entities(
    predict_step: Callable[[BatchData], BatchData],
    texts: Sequence[str],
    *,
    reader: DocumentReader,
    collate: Collate,
    layers: TagLayers,
    batch_size: int,
    rule: str,
) -> list[tuple[Entity, ...]]:
    """Return the entities of each text; see `TokenClassification.predictor`."""
    readings, ladder = reader.read(texts), prediction_ladder(reader.max_length)
    shape = (len(layers), len(layers[0]))
    probabilities = [np.zeros((len(r.words), *shape), np.float32) for r in readings]
    windows = [(number, w) for number, reading in enumerate(readings) for w in reading.windows]
    # Sorted by length, so that the windows of a batch need little padding.
    windows.sort(key=lambda pair: len(pair[1].ids))
    for first in range(0, len(windows), batch_size):
        group = windows[first : first + batch_size]
        batch = collate([_unlabelled(window, len(layers)) for _, window in group])
        outputs = predict_step(fix_shape(batch, ladder, batch_size))
        tokens = np.asarray(_softmax(outputs["logits"], shape))
        for (number, window), of_tokens in zip(group, tokens, strict=False):
            words = slice(window.first_word, window.stop_word)
            of_words = of_tokens[window.positions]
            check_finite(of_words)
            probabilities[number][words] = of_words
    return [
        _entities(reading.words, of_words, layers, rule)
        for reading, of_words in zip(readings, probabilities, strict=True)
    ]


def _unlabelled(window: Window, nb_layers: int) -> dict[str, Any]:
    ignored: Any = IGNORED if nb_layers == 1 else (IGNORED,) * nb_layers
    return {"input_ids": window.ids, "labels": [ignored] * len(window.ids), GOLD: None}


def _entities(
    words: Sequence[Word], probabilities: np.ndarray, layers: TagLayers, rule: str
) -> tuple[Entity, ...]:
    """Return the entities in the probabilities of tags, shape (words, layers, tags)."""
    entities = [
        Entity(
            label,
            words[first].start,
            words[stop - 1].end,
            float(probabilities[first:stop, layer].max(-1).mean()),
        )
        for layer, tags in enumerate(layers)
        for label, first, stop in tags_to_spans(
            [tags[number] for number in probabilities[:, layer].argmax(-1)], rule
        )
    ]
    return tuple(sorted(entities, key=lambda entity: (entity.start, entity.end, entity.label)))
