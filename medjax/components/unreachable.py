"""Annotated entities that no tags can stand for, whatever the tagger predicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from medjax.alignment import Word, entities_to_spans, spans_to_entities
from medjax.tagging import spans_to_tags, tags_to_spans
from medjax.text import Document, Entity

_NAMED = 3  # entities that a note names

UNKNOWN = "have a label that the tagger does not know"
NO_WORD = "have no word of their own"
SHARED = "share a word with another"
INSIDE = "start or end inside a word"


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


def find_unreachable(
    position: int,
    document: Document,
    words: Sequence[Word],
    labels: Sequence[str],
    scheme: str,
) -> list[Unreachable]:
    """Return the entities of a document that are not found again from their own tags."""
    if not document.entities:
        return []
    offsets = [(word.start, word.end) for word in words]
    known = [entity for entity in document.entities if entity.label in labels]
    tags = spans_to_tags(entities_to_spans(known, offsets), len(words), scheme)
    found = Counter(e[:3] for e in spans_to_entities(tags_to_spans(tags), offsets))
    name = getattr(document, "name", "") or f"document {position}"
    unreachable = []
    for entity in document.entities:
        key = (entity.label, entity.start, entity.end)
        if found[key] == 0:
            text = document.text[entity.start : entity.end]
            reason = _reason(entity, offsets) if entity.label in labels else UNKNOWN
            unreachable.append(Unreachable(position, name, entity, text, reason))
        found[key] -= 1  # the same entity annotated twice is found once
    return unreachable


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
