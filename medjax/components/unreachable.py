"""Find the annotated entities that no sequence of tags can represent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from medjax.text import Document, Entity
from medjax.text.alignment import Word, entities_to_spans, spans_to_entities
from medjax.text.tagging import spans_to_tags, tags_to_spans

__all__ = [
    "INSIDE",
    "Unreachable",
    "entities_once",
    "find_unreachable",
    "repeated_note",
    "unreachable_note",
]

_NB_NAMED = 3  # number of entities that a note names

INSIDE = "start or end inside a word"
_NO_WORD = "have no word of their own"
_SHARED = "share a word with another"
_UNKNOWN = "have a label that the tagger does not know"


class Unreachable(NamedTuple):
    """An annotated entity that no sequence of tags can represent; it counts as missed.

    Attributes
    ----------
    position : int
        Position of its document in the dataset.
    document : str
        Name of the document.
    entity : Entity
        The entity.
    text : str
        The text that it covers.
    reason : str
        The reason, as a verb phrase in the plural: "share a word with another", for instance.

    Examples
    --------
    >>> Unreachable(0, "note.txt", Entity("Sign", 3, 6), "fev", "start or end inside a word").text
    'fev'
    """

    position: int
    document: str
    entity: Entity
    text: str
    reason: str


def find_unreachable(
    position: int,
    document: Document,
    words: Sequence[Word],
    layers: Sequence[Sequence[str]],
    scheme: str,
) -> list[Unreachable]:
    """Return the entities of a document that cannot be recovered from their own tags.

    Parameters
    ----------
    position : int
        Position of the document.
    document : Document
        The document.
    words : sequence of Word
        Its words.
    layers : sequence of sequence of str
        Labels of the entities in each sequence of tags.
    scheme : str
        Tagging scheme.
    """
    if not document.entities:
        return []
    offsets = [(word.start, word.end) for word in words]
    recovered: set[tuple[str, int, int]] = set()
    for labels in layers:
        known = [entity for entity in document.entities if entity.label in labels]
        tags = spans_to_tags(entities_to_spans(known, offsets), len(words), scheme)
        recovered.update(e[:3] for e in spans_to_entities(tags_to_spans(tags), offsets))
    all_labels = {label for labels in layers for label in labels}
    name = getattr(document, "name", "") or f"document {position}"
    unreachable = []
    for key, entity in entities_once(document).items():
        if key not in recovered:
            text = document.text[entity.start : entity.end]
            reason = _reason(entity, offsets) if entity.label in all_labels else _UNKNOWN
            unreachable.append(Unreachable(position, name, entity, text, reason))
    return unreachable


def entities_once(document: Any) -> dict[tuple[str, int, int], Entity]:
    """Return the entities of a document by label, start and end, those annotated twice once."""
    return {(entity.label, entity.start, entity.end): entity for entity in document.entities}


def _reason(entity: Entity, offsets: Sequence[tuple[int, int]]) -> str:
    touched = [(start, end) for start, end in offsets if start < entity.end and entity.start < end]
    if not touched:
        return _NO_WORD
    fits_words = touched[0][0] == entity.start and touched[-1][1] == entity.end
    return _SHARED if fits_words else INSIDE


def repeated_note(nb_repeated: int, nb_documents: int) -> str:
    """Return a note for the user on the entities that are annotated more than once."""
    return (
        f"{nb_repeated:,} entities in {nb_documents:,} documents are annotated twice, with the "
        "same label, start and end; they count once"
    )


def unreachable_note(
    unreachable: Sequence[Unreachable], nb_entities: int, nb_documents: int
) -> str:
    """Return a note for the user on the entities that no tags can represent."""
    counts = Counter(entity.reason for entity in unreachable)
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
    named = ", ".join(f"{e.text!r} in {e.document}" for e in unreachable[:_NB_NAMED])
    more = ", ..." if len(unreachable) > _NB_NAMED else ""
    return (
        f"{len(unreachable):,} of {nb_entities:,} entities in {nb_documents:,} documents cannot be "
        f"represented by tags and count as missed: {reasons} ({named}{more})"
    )
