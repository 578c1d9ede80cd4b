"""Documents as a tagger reads them: their words, their windows, and what no tags can stand for."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from medjax.alignment import Word, entities_to_spans, spans_to_entities, tokens_to_words
from medjax.component import ExpandedData
from medjax.components.windows import Window, split_windows
from medjax.models.tokenizer import Tokenizer
from medjax.tagging import spans_to_tags, tags_to_spans
from medjax.text import Document, Entity

_BATCH = 256  # documents tokenized together, which the tokenizer does in threads
_NAMED = 3  # entities that a note names

NO_WORD = "have no word of their own"
SHARED = "share a word with another"
INSIDE = "start or end inside a word"


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


class Unreachable(NamedTuple):
    """An annotated entity that a perfect tagger cannot return; it counts as missed.

    Attributes
    ----------
    position : int
        Position of its document in the dataset.
    document : str
        Name of the document.
    entity : Entity
        The entity.
    text : str
        What it covers.
    reason : str
        Why: it has no word, shares its word with another entity, or ends inside a word.
    """

    position: int
    document: str
    entity: Entity
    text: str
    reason: str


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


def expand_documents(
    documents: Any, reader: DocumentReader, labels: Sequence[str], scheme: str
) -> ExpandedData:
    """Return the windows of all documents, and notes on what the tagger cannot read of them.

    Parameters
    ----------
    documents : Dataset
        Documents, with ``__len__`` and ``__getitem__``.
    reader : DocumentReader
        Reads their texts.
    labels : sequence of str
        Kinds of entities that the tagger knows.
    scheme : str
        Its tagging scheme.

    Raises
    ------
    ValueError
        If an entity has another label, is empty or lies outside its text.
    """
    windows: list[DocumentWindow] = []
    unreachable: list[Unreachable] = []
    nb_entities = nb_tokens = nb_unknown = 0
    for position, document, reading in read_documents(documents, reader):
        check_entities(document, labels)
        windows += [DocumentWindow(documents, position, n) for n in range(len(reading.windows))]
        unreachable += find_unreachable(position, document, reading.words, scheme)
        nb_entities += len(document.entities)
        nb_tokens += reading.nb_tokens
        nb_unknown += reading.nb_unknown
    notes = []
    if unreachable:
        note = unreachable_note(unreachable, nb_entities, len(documents))
        if not reader.subtokens and any(entity.reason == INSIDE for entity in unreachable):
            note += "; tag_subtokens=True reaches those that start and end between tokens"
        notes.append(note)
    if nb_unknown > 0.05 * nb_tokens:
        notes.append(
            f"{nb_unknown / nb_tokens:.0%} of the tokens of {len(documents):,} documents are "
            "unknown to the tokenizer; use a model made for their language and script"
        )
    return ExpandedData(windows, [window.position for window in windows], notes)


def read_documents(documents: Any, reader: DocumentReader) -> Iterator[tuple[int, Any, Reading]]:
    """Yield position, document and reading of all documents of a dataset."""
    for first in range(0, len(documents), _BATCH):
        positions = range(first, min(first + _BATCH, len(documents)))
        batch = [documents[position] for position in positions]
        readings = reader.read([document.text for document in batch])
        yield from zip(positions, batch, readings, strict=True)


def check_entities(document: Document, labels: Sequence[str]) -> None:
    """Refuse entities that are not of the given labels or not in the text."""
    where = f"document {document.name!r}" if getattr(document, "name", "") else "a document"
    for entity in document.entities:
        if entity.label not in labels:
            msg = f"{where} has the label {entity.label!r}; expected one of {list(labels)}"
            raise ValueError(msg)
        if not 0 <= entity.start < entity.end <= len(document.text):
            msg = (
                f"{where} has the entity {tuple(entity[:3])}; expected 0 <= start < end <= "
                f"{len(document.text)}, the length of its text"
            )
            raise ValueError(msg)


def find_unreachable(
    position: int, document: Document, words: Sequence[Word], scheme: str
) -> list[Unreachable]:
    """Return the entities of a document that are not found again from their own tags."""
    if not document.entities:
        return []
    offsets = [(word.start, word.end) for word in words]
    tags = spans_to_tags(entities_to_spans(document.entities, offsets), len(words), scheme)
    found = {e[:3] for e in spans_to_entities(tags_to_spans(tags), offsets)}
    name = getattr(document, "name", "") or f"document {position}"
    return [
        Unreachable(
            position,
            name,
            entity,
            document.text[entity.start : entity.end],
            _reason(entity, offsets),
        )
        for entity in document.entities
        if tuple(entity[:3]) not in found
    ]


def _reason(entity: Entity, offsets: Sequence[tuple[int, int]]) -> str:
    touched = [(start, end) for start, end in offsets if start < entity.end and entity.start < end]
    if not touched:
        return NO_WORD
    is_whole = touched[0][0] == entity.start and touched[-1][1] == entity.end
    return SHARED if is_whole else INSIDE


def unreachable_note(
    unreachable: Sequence[Unreachable], nb_entities: int, nb_documents: int
) -> str:
    """Return what to say of entities that no tags can stand for."""
    counts = Counter(entity.reason for entity in unreachable)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    named = ", ".join(f"{e.text!r} in {e.document}" for e in unreachable[:_NAMED])
    more = ", ..." if len(unreachable) > _NAMED else ""
    return (
        f"{len(unreachable):,} of {nb_entities:,} entities in {nb_documents:,} documents cannot be "
        f"tagged exactly and count as missed: {reasons} ({named}{more})"
    )


def window_of(
    document: Document, reading: Reading, number: int
) -> tuple[Window, list[Word], list[Entity]]:
    """Return a window of a document with its words and the entities that start in it."""
    windows, words = reading.windows, reading.words
    window = windows[number]
    bounds = [words[w.first_word].start for w in windows[1:] if w.first_word < len(words)]
    bounds += [len(document.text)] * (len(windows) - len(bounds))
    begin, stop = bounds[number - 1] if number else 0, bounds[number]
    entities = [e for e in document.entities if begin <= e.start < stop]
    return window, words[window.first_word : window.stop_word], entities
