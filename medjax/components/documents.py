"""Documents as a tagger reads them: words, windows, and the examples made of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from medjax.alignment import Word, entities_to_tags, tokens_to_words
from medjax.component import ExpandedData
from medjax.components.unreachable import INSIDE, Unreachable, find_unreachable, unreachable_note
from medjax.components.windows import Window, split_windows
from medjax.metrics import GOLD, IGNORED, Gold
from medjax.models.tokenizer import Tokenizer
from medjax.tagging import OUTSIDE, labels_of, tag_names
from medjax.text import Document

_BATCH = 256  # documents tokenized together, which the tokenizer does in threads
_UNKNOWN = 0.1  # share of unknown tokens above which text and tokenizer do not fit


class Reading(NamedTuple):
    """A text as words and windows.

    Attributes
    ----------
    words : list of Word
        What gets a tag each.
    windows : list of Window
        One, or several of a long text.
    nb_tokens, nb_unknown : int
        Tokens of the text, and how many of them the tokenizer does not know.
    """

    words: list[Word]
    windows: list[Window]
    nb_tokens: int
    nb_unknown: int


class DocumentWindow(NamedTuple):
    """One window of a document of a dataset: what `TokenClassification.preprocess` gets.

    Attributes
    ----------
    documents : Dataset
        The dataset.
    position : int
        Position of the document in it.
    number : int
        Number of the window in the document.
    """

    documents: Any
    position: int
    number: int


@dataclasses.dataclass(frozen=True)
class DocumentReader:
    """Reads texts for a tagger.

    Attributes
    ----------
    tokenizer : Tokenizer
        The tokenizer.
    max_length : int
        Tokens of a window, special tokens included.
    subtokens : bool
        Whether each token is tagged, and not each word.
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


def read_documents(documents: Any, reader: DocumentReader) -> Iterator[tuple[int, Any, Reading]]:
    """Yield position, document and reading of all documents of a dataset, checked."""
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
    tags: Sequence[str],
    scheme: str,
    *,
    training: bool,
) -> ExpandedData:
    """Return the windows of all documents; see `TokenClassification.expand`."""
    windows: list[DocumentWindow] = []
    unreachable: list[Unreachable] = []
    nb_entities = nb_tokens = nb_unknown = 0
    found: set[str] = set()
    labels = labels_of(tags)
    for position, document, reading in read_documents(documents, reader):
        if training:
            check_labels(document, labels)
        windows += [DocumentWindow(documents, position, n) for n in range(len(reading.windows))]
        unreachable += find_unreachable(position, document, reading.words, labels, scheme)
        found.update(entity.label for entity in document.entities)
        nb_entities += len(document.entities)
        nb_tokens += reading.nb_tokens
        nb_unknown += reading.nb_unknown
    if training and (missing := set(tag_names(sorted(found), scheme)) - set(tags)):
        msg = (
            f"the data needs the tags {sorted(missing)}, which the classifier of this checkpoint "
            f"lacks; it has {list(tags)}. Give labels=[...] to train a new classifier"
        )
        raise ValueError(msg)
    notes = []
    if unreachable:
        note = unreachable_note(unreachable, nb_entities, len(documents))
        if not reader.subtokens and any(entity.reason == INSIDE for entity in unreachable):
            note += "; tag_subtokens=True reaches those that start and end between tokens"
        notes.append(note)
    if nb_unknown > _UNKNOWN * nb_tokens:
        notes.append(
            f"{nb_unknown / nb_tokens:.0%} of the tokens of {len(documents):,} documents are "
            "unknown to the tokenizer; use a model made for their language and script"
        )
    return ExpandedData(windows, [window.position for window in windows], tuple(notes))


def find_all_unreachable(
    documents: Any, reader: DocumentReader, labels: Sequence[str], scheme: str
) -> list[Unreachable]:
    """Return the entities of a dataset that no tags can stand for."""
    return [
        entity
        for position, document, reading in read_documents(documents, reader)
        for entity in find_unreachable(position, document, reading.words, labels, scheme)
    ]


def check_document(document: Any) -> None:
    """Refuse what is no document, and entities outside the text."""
    if not isinstance(getattr(document, "text", None), str) or not hasattr(document, "entities"):
        msg = (
            f"an item of the data is {document!r:.60}; expected a medjax.text.Document, or an "
            "object that has its text and entities"
        )
        raise ValueError(msg)
    for entity in document.entities:
        if not 0 <= entity.start < entity.end <= len(document.text):
            msg = (
                f"{_called(document)} has {entity.label} at {entity.start} to {entity.end}; "
                f"expected 0 <= start < end <= {len(document.text)}, the length of its text"
            )
            raise ValueError(msg)


def check_labels(document: Any, labels: Sequence[str]) -> None:
    """Refuse entities of other labels."""
    for entity in document.entities:
        if entity.label not in labels:
            msg = f"{_called(document)} has the label {entity.label!r}; expected one of "
            raise ValueError(f"{msg}{list(labels)}")


def _called(document: Any) -> str:
    return f"the document {getattr(document, 'name', '') or document.text[:40]!r}"


def window_example(
    item: Document | DocumentWindow, reader: DocumentReader, tags: Sequence[str], scheme: str
) -> dict[str, Any]:
    """Return token ids, labels and annotation of a window; see `TokenClassification.preprocess`."""
    position, number = None, 0
    document: Any = item
    if isinstance(item, DocumentWindow):
        document, position, number = item.documents[item.position], item.position, item.number
    check_document(document)
    labels_known = labels_of(tags)
    if position is None:
        check_labels(document, labels_known)
    (reading,) = reader.read([document.text])
    if position is None and len(reading.windows) > 1:
        msg = (
            f"a document of {reading.nb_tokens} tokens found; expected one that fits in "
            f"max_length={reader.max_length}, or the items of TokenClassification.expand"
        )
        raise ValueError(msg)
    if number >= len(reading.windows):
        msg = f"document {position} was longer when training started; keep the data as it is"
        raise ValueError(msg)
    window = reading.windows[number]
    offsets = [(word.start, word.end) for word in reading.words]
    # Of the whole document, since an entity may start in one window and end in the next.
    known = [entity for entity in document.entities if entity.label in labels_known]
    names = entities_to_tags(known, offsets, scheme)
    ids = {tag: number for number, tag in enumerate(tags)}
    labels = [IGNORED] * len(window.ids)
    tagged = slice(window.first_word, window.stop_word)
    for place, name in zip(window.positions, names[tagged], strict=True):
        labels[place] = ids.get(name, ids.get(OUTSIDE, 0))  # in evaluation a tag may be lacking
    begin, stop = _stretch(reading, number, len(document.text))
    entities = [(e.label, e.start, e.end) for e in document.entities if begin <= e.start < stop]
    gold = Gold(position, offsets[tagged], entities)
    return {"input_ids": window.ids, "labels": labels, GOLD: gold}


def _stretch(reading: Reading, number: int, length: int) -> tuple[int, int]:
    """Return start and end of the text that falls to a window; those of all have no gap."""
    begins = [window.first_word for window in reading.windows[number : number + 2]]
    places = [reading.words[n].start if n < len(reading.words) else length for n in begins]
    return places[0] if number else 0, places[1] if len(places) > 1 else length
