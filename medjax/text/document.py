"""Annotated text: what the readers return and what the text components train on."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = [
    "Document",
    "Entity",
    "LabelledText",
    "Relation",
    "label_form",
    "relation_kinds",
    "without_overlaps",
]

# Characters of a text, and entities and relations of a document, that a repr shows.
_SHOWN_TEXT = 80
_SHOWN_ANNOTATIONS = 3


def label_form(name: str) -> str:
    r"""Return the one form of the labels that look like this one.

    White space around it is removed, any within is one blank, and accents are those of NFC.

    Examples
    --------
    >>> label_form(" heart\xa0 failure")
    'heart failure'
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


class Entity(NamedTuple):
    """A labelled stretch of text, by character offsets into its document.

    Attributes
    ----------
    label : str
        Kind of entity, for instance ``"Disease"``.
    start, end : int
        Offsets in characters (Unicode code points), `end` exclusive.
    score : float or None
        Probability between 0 and 1 if a model predicted the entity, None if it was annotated.

    Examples
    --------
    >>> Entity("Drug", 0, 7)
    Entity(label='Drug', start=0, end=7, score=None)
    """

    label: str
    start: int
    end: int
    score: float | None = None


class Relation(NamedTuple):
    """A labelled, directed link between two entities of a document.

    Attributes
    ----------
    label : str
        Kind of relation, for instance ``"Treats"``.
    head, tail : int
        Places of the entities it goes from and to, in the `entities` of their document.
    score : float or None
        Probability between 0 and 1 if a model predicted the relation, None if it was annotated.

    Examples
    --------
    >>> Relation("Treats", head=0, tail=2)
    Relation(label='Treats', head=0, tail=2, score=None)
    """

    label: str
    head: int
    tail: int
    score: float | None = None


class Document(NamedTuple):
    """A text with its entities and the relations between them.

    Attributes
    ----------
    text : str
        The text that the offsets of the entities refer to.
    entities : tuple of Entity
        The annotations, sorted by start, end and label. They do not overlap, unless a reader was
        asked to keep overlaps.
    name : str
        Where the document comes from, for messages: the name of a file, maybe with a line.
    relations : tuple of Relation
        Links between the entities.

    Examples
    --------
    >>> Document("Aspirin 75 mg", (Entity("Drug", 0, 7),), "note.txt").entities[0].label
    'Drug'
    """

    text: str
    entities: tuple[Entity, ...] = ()
    name: str = ""
    relations: tuple[Relation, ...] = ()

    def __repr__(self) -> str:
        """Return the beginning of the text and of the lists of entities and relations."""
        text = repr(self.text[:_SHOWN_TEXT])
        if len(self.text) > _SHOWN_TEXT:
            text += f"... ({len(self.text):,} characters)"
        entities = f"entities={_beginning_of(self.entities)}"
        relations = f", relations={_beginning_of(self.relations)}" if self.relations else ""
        return f"Document(text={text}, {entities}, name={self.name!r}{relations})"


def _beginning_of(annotations: tuple[NamedTuple, ...]) -> str:
    shown = repr(annotations[:_SHOWN_ANNOTATIONS])
    nb_more = len(annotations) - _SHOWN_ANNOTATIONS
    return shown if nb_more <= 0 else f"{shown[:-1]}, ... {nb_more:,} more)"


class LabelledText(NamedTuple):
    """A text and the classes it belongs to.

    Attributes
    ----------
    text : str
        The text.
    labels : tuple of str
        Names of its classes: one, or any number where texts may have several.
    name : str
        Where the text comes from, for messages.
    group : str
        What texts that depend on each other share, such as a patient.

    Examples
    --------
    >>> LabelledText("Chest pain for two hours.", ("cardiology",)).labels
    ('cardiology',)
    """

    text: str
    labels: tuple[str, ...] = ()
    name: str = ""
    group: str = ""


def without_overlaps(entities: Iterable[Entity]) -> tuple[tuple[Entity, ...], int]:
    """Keep the longest of entities that overlap.

    Entities are considered from the longest to the shortest, those of equal length in the order of
    the text, those with equal offsets in the order of `entities`. An entity that overlaps one
    already kept is dropped. So the kept entities do not overlap, and each dropped one overlaps a
    kept one that is at least as long.

    Parameters
    ----------
    entities : iterable of Entity
        Entities in any order, each with ``start < end``.

    Returns
    -------
    kept : tuple of Entity
        The remaining entities, in the order of the text.
    nb_dropped : int
        Number of dropped entities.

    Examples
    --------
    >>> without_overlaps([Entity("Body", 5, 9), Entity("Disease", 0, 9)])
    ((Entity(label='Disease', start=0, end=9, score=None),), 1)
    """
    listed = list(entities)
    kept = places_without_overlaps(listed)
    return tuple(listed[place] for place in kept), len(listed) - len(kept)


def places_without_overlaps(entities: Sequence[Entity]) -> list[int]:
    """Return the places of the entities that `without_overlaps` keeps, in the order of the text.

    Parameters
    ----------
    entities : sequence of Entity
        Entities in any order, each with ``start < end``.

    Examples
    --------
    >>> places_without_overlaps([Entity("Body", 5, 9), Entity("Disease", 0, 9)])
    [1]
    """

    def longest_first(place: int) -> tuple[int, int]:
        entity = entities[place]
        return entity.start - entity.end, entity.start

    kept: list[int] = []
    starts: list[int] = []  # those of the kept entities, in the same order
    for place in sorted(range(len(entities)), key=longest_first):
        entity = entities[place]
        index = bisect_left(starts, entity.start)
        before_is_free = index == 0 or entities[kept[index - 1]].end <= entity.start
        after_is_free = index == len(kept) or entity.end <= starts[index]
        if before_is_free and after_is_free:
            kept.insert(index, place)
            starts.insert(index, entity.start)
    return kept


def relation_kinds(documents: Iterable[Document]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return which relations a corpus has, and between which entities.

    Parameters
    ----------
    documents : iterable of Document
        Annotated documents.

    Returns
    -------
    labels : list of str
        Labels of the relations, sorted.
    kinds : list of (str, str)
        Labels of the entities that they go from and to, sorted.

    Examples
    --------
    >>> entities = (Entity("Drug", 0, 7), Entity("Sign", 17, 25))
    >>> relieved = Relation("Relieves", head=0, tail=1)
    >>> relation_kinds([Document("Aspirin relieved headache", entities, relations=(relieved,))])
    (['Relieves'], [('Drug', 'Sign')])
    """
    labels: set[str] = set()
    kinds: set[tuple[str, str]] = set()
    for document in documents:
        for relation in document.relations:
            labels.add(relation.label)
            ends = (document.entities[relation.head], document.entities[relation.tail])
            kinds.add((ends[0].label, ends[1].label))
    return sorted(labels), sorted(kinds)
