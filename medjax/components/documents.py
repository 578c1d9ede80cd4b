"""Read documents for a tagger: split them into words and windows, and make examples of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from medjax.component import ExpandedData
from medjax.components.unreachable import (
    INSIDE,
    Unreachable,
    entities_once,
    find_unreachable,
    repeated_note,
    unreachable_note,
)
from medjax.components.windows import Window, split_windows
from medjax.metrics import GOLD, IGNORED, Gold
from medjax.models.tokenizer import Tokenizer
from medjax.text import Document
from medjax.text.alignment import Word, entities_to_tags, tokens_to_words
from medjax.text.tagging import OUTSIDE, labels_of, tag_names

__all__ = [
    "DocumentReader",
    "DocumentWindow",
    "Reading",
    "TagLayers",
    "check_document",
    "expand_documents",
    "find_all_unreachable",
    "name_of",
    "window_example",
]

TagLayers = Sequence[Sequence[str]]
"""The tags of each sequence of tags that a text has; see `medjax.text.tagging.tag_layers`."""

_BATCH = 256  # number of documents that the tokenizer encodes at once, in threads
_UNKNOWN = 0.1  # share of unknown tokens above which the user is warned


class Reading(NamedTuple):
    """The words and windows of a text.

    Attributes
    ----------
    words : list of Word
        The units that are tagged.
    windows : list of Window
        One window, or several if the text is long.
    nb_tokens, nb_unknown : int
        Number of tokens of the text, and of those that the tokenizer does not know.
    """

    words: list[Word]
    windows: list[Window]
    nb_tokens: int
    nb_unknown: int


class DocumentWindow(NamedTuple):
    """A window of a document, the item that `TokenClassification.preprocess` takes.

    Attributes
    ----------
    documents : Dataset
        The dataset.
    position : int
        Position of the document in the dataset.
    number : int
        Number of the window in the document, from 0.

    Examples
    --------
    >>> DocumentWindow([Document("No fever."), Document("No cough.")], position=1, number=0)
    DocumentWindow(2 documents, position=1, number=0)
    """

    documents: Any
    position: int
    number: int

    def __repr__(self) -> str:
        """Leave out the documents."""
        return (
            f"{type(self).__name__}({len(self.documents):,} documents, position={self.position}, "
            f"number={self.number})"
        )


@dataclasses.dataclass(frozen=True)
class DocumentReader:
    """Splits texts into words and windows.

    Attributes
    ----------
    tokenizer : Tokenizer
        The model's tokenizer.
    max_length : int
        Tokens of a window, special tokens included.
    subtokens : bool
        Whether each token is tagged, instead of each word.
    """

    tokenizer: Tokenizer
    max_length: int
    subtokens: bool

    def read(self, texts: Sequence[str]) -> list[Reading]:
        """Return the words and windows of texts."""
        return [
            self._reading(text, encoding)
            for text, encoding in zip(texts, self.tokenizer.encode(texts), strict=True)
        ]

    def _reading(self, text: str, encoding: Any) -> Reading:
        words = tokens_to_words(text, encoding.offsets, subtokens=self.subtokens)
        windows = split_windows(encoding, words, self.max_length)
        nb_tokens = len(encoding.ids) - sum(encoding.special_tokens_mask)
        unknown = self.tokenizer.unknown_token_id
        nb_unknown = 0 if unknown is None else encoding.ids.count(unknown)
        return Reading(words, windows, nb_tokens, nb_unknown)


def _readings(documents: Any, reader: DocumentReader) -> Iterator[tuple[int, Any, Reading]]:
    """Check the documents of a dataset; yield the position, document and reading of each."""
    for first in range(0, len(documents), _BATCH):
        positions = range(first, min(first + _BATCH, len(documents)))
        batch = [documents[position] for position in positions]
        for document in batch:
            check_document(document)
        readings = reader.read([document.text for document in batch])
        yield from zip(positions, batch, readings, strict=True)


def expand_documents(
    documents: Any,
    reader: DocumentReader,
    layers: TagLayers,
    scheme: str,
    *,
    training: bool,
) -> ExpandedData:
    """Return the windows of all documents; see `TokenClassification.expand`."""
    windows: list[DocumentWindow] = []
    unreachable: list[Unreachable] = []
    nb_entities = nb_repeated = nb_tokens = nb_unknown = 0
    used_labels: set[str] = set()
    of_layers = [labels_of(tags) for tags in layers]
    labels = [label for of_layer in of_layers for label in of_layer]
    for position, document, reading in _readings(documents, reader):
        if training:
            _check_labels(document, labels)
        windows += [DocumentWindow(documents, position, n) for n in range(len(reading.windows))]
        unreachable += find_unreachable(position, document, reading.words, of_layers, scheme)
        used_labels.update(entity.label for entity in document.entities)
        nb_entities += (count := len(entities_once(document)))
        nb_repeated += len(document.entities) - count
        nb_tokens += reading.nb_tokens
        nb_unknown += reading.nb_unknown
    known_tags = {tag for tags in layers for tag in tags}
    if training and (missing := set(tag_names(sorted(used_labels), scheme)) - known_tags):
        msg = (
            f"the data needs the tags {sorted(missing)}, which the classifier of this checkpoint "
            f"lacks; it has {sorted(known_tags)}. Pass labels=[...] to train a new classifier"
        )
        raise ValueError(msg)
    notes = [repeated_note(nb_repeated, len(documents))] if nb_repeated else []
    if unreachable:
        note = unreachable_note(unreachable, nb_entities, len(documents))
        if not reader.subtokens and any(entity.reason == INSIDE for entity in unreachable):
            note += "; tag_subtokens=True can represent entities that start and end between tokens"
        notes.append(note)
    if nb_unknown > _UNKNOWN * nb_tokens:
        notes.append(_unknown_note(nb_unknown / nb_tokens, len(documents)))
    return ExpandedData(windows, [window.position for window in windows], tuple(notes))


def _unknown_note(share: float, nb_documents: int) -> str:
    return (
        f"{share:.0%} of the tokens of {nb_documents:,} documents are unknown to the tokenizer; "
        "use a model for their language and script"
    )


def find_all_unreachable(
    documents: Any, reader: DocumentReader, layers: TagLayers, scheme: str
) -> list[Unreachable]:
    """Return the entities of a dataset that no tags can represent."""
    of_layers = [labels_of(tags) for tags in layers]
    return [
        entity
        for position, document, reading in _readings(documents, reader)
        for entity in find_unreachable(position, document, reading.words, of_layers, scheme)
    ]


def check_document(document: Any) -> None:
    """Raise ValueError unless it is a document with entities inside its text."""
    if not isinstance(getattr(document, "text", None), str) or not hasattr(document, "entities"):
        msg = (
            f"an item of the data is {document!r:.60}; expected a medjax.text.Document or another "
            "object with the attributes text and entities"
        )
        raise ValueError(msg)
    for entity in document.entities:
        if not 0 <= entity.start < entity.end <= len(document.text):
            msg = (
                f"{name_of(document)} has {entity.label} at {entity.start} to {entity.end}; "
                f"expected 0 <= start < end <= {len(document.text)}, the length of its text"
            )
            raise ValueError(msg)


def _check_labels(document: Any, labels: Sequence[str]) -> None:
    """Raise ValueError if an entity has another label."""
    for entity in document.entities:
        if entity.label not in labels:
            msg = (
                f"{name_of(document)} has the label {entity.label!r}; expected one of "
                f"{list(labels)}"
            )
            raise ValueError(msg)


def name_of(document: Any) -> str:
    """Return how a message names a document."""
    return f"the document {getattr(document, 'name', '') or document.text[:40]!r}"


def window_example(
    item: Document | DocumentWindow, reader: DocumentReader, layers: TagLayers, scheme: str
) -> dict[str, Any]:
    """Return token ids, labels and annotation of a window; see `TokenClassification.preprocess`."""
    position, number = None, 0
    document: Any = item
    if isinstance(item, DocumentWindow):
        document, position, number = item.documents[item.position], item.position, item.number
    check_document(document)
    known_labels = [label for tags in layers for label in labels_of(tags)]
    if position is None:
        _check_labels(document, known_labels)
    (reading,) = reader.read([document.text])
    if position is None and len(reading.windows) > 1:
        msg = (
            f"found a document of {reading.nb_tokens} tokens; expected one that fits in "
            f"max_length={reader.max_length}, or an item of TokenClassification.expand"
        )
        raise ValueError(msg)
    if number >= len(reading.windows):
        msg = (
            f"document {position} was longer when training started; do not change the data "
            "during training"
        )
        raise ValueError(msg)
    window = reading.windows[number]
    offsets = [(word.start, word.end) for word in reading.words]
    tagged = slice(window.first_word, window.stop_word)
    of_layers = []
    for tags in layers:
        # Tags of the whole document, as an entity may start in one window and end in the next.
        labels_here = labels_of(tags)
        known = [entity for entity in document.entities if entity.label in labels_here]
        names = entities_to_tags(known, offsets, scheme)[tagged]
        ids = {tag: number for number, tag in enumerate(tags)}
        labels = [IGNORED] * len(window.ids)
        for token, name in zip(window.positions, names, strict=True):
            labels[token] = ids.get(name, ids.get(OUTSIDE, 0))  # in evaluation, one may be unknown
        of_layers.append(labels)
    begin, stop = _text_range(reading, number, len(document.text))
    entities = [e for e in entities_once(document) if begin <= e[1] < stop]
    gold = Gold(position, offsets[tagged], entities)
    labels_of_tokens: Any = of_layers[0] if len(layers) == 1 else list(zip(*of_layers, strict=True))
    return {"input_ids": window.ids, "labels": labels_of_tokens, GOLD: gold}


def _text_range(reading: Reading, number: int, length: int) -> tuple[int, int]:
    """Return start and end of a window's share of the text; the shares leave no gap."""
    first_words = [window.first_word for window in reading.windows[number : number + 2]]
    starts = [reading.words[n].start if n < len(reading.words) else length for n in first_words]
    return starts[0] if number else 0, starts[1] if len(starts) > 1 else length
