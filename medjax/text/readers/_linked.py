"""Build documents whose relations still point to their entities when some are left out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence

from medjax.text.document import Document, Entity, Relation, places_without_overlaps
from medjax.text.readers._dropped import LOST_RELATIONS, OVERLAPPING, Tally

UNMENTIONED = "relations of concepts without a mention"
REFLEXIVE = "relations of an entity with itself"
UNNAMED_RELATION = "related"
"""The label of relations that have none."""

_NO_CONCEPT = {"", "-", "-1"}


def linked_document(
    text: str,
    entities: Sequence[Entity],
    relations: Iterable[Relation],
    name: str,
    *,
    overlapping: bool,
    file: str,
    tally: Tally,
) -> Document:
    """Return a document with sorted entities and the relations between them.

    Parameters
    ----------
    text : str
        Text of the document.
    entities : sequence of Entity
        Annotations, in any order.
    relations : iterable of Relation
        Relations by places in `entities`.
    name : str
        Name of the document.
    overlapping : bool
        Whether entities that overlap are kept, sorted by start, end and label. Otherwise the
        longest of them is kept and the others are counted.
    file : str
        The file, for the counts.
    tally : Tally
        Counts the entities and relations left out.

    Examples
    --------
    >>> entities = [Entity("Drug", 5, 9), Entity("Sign", 0, 4)]
    >>> linked_document("rash drug", entities, [Relation("Causes", 0, 1)], "", overlapping=True,
    ...     file="", tally=Tally()).relations
    (Relation(label='Causes', head=1, tail=0, score=None),)
    """
    if overlapping:
        kept = sorted(range(len(entities)), key=lambda place: _order(entities[place]))
    else:
        kept = places_without_overlaps(entities)
    tally.add(file, OVERLAPPING, len(entities) - len(kept))
    places = {old: new for new, old in enumerate(kept)}
    linked = []
    for relation in relations:
        head = places.get(relation.head)
        tail = places.get(relation.tail)
        if head is None or tail is None:
            tally.add(file, LOST_RELATIONS)
        else:
            linked.append(relation._replace(head=head, tail=tail))
    return Document(text, tuple(entities[place] for place in kept), name, tuple(linked))


def _order(entity: Entity) -> tuple[int, int, str]:
    return entity.start, entity.end, entity.label


def concepts_of(identifier: str) -> Iterator[str]:
    """Yield the concepts of an identifier: itself and, if it is composite, its parts.

    Examples
    --------
    >>> list(concepts_of("D003711|D009410")), list(concepts_of("-1"))
    (['D003711|D009410', 'D003711', 'D009410'], [])
    """
    parts = [part.strip() for part in re.split(r"[|;,]", identifier)]
    yield from dict.fromkeys(part for part in (identifier, *parts) if part not in _NO_CONCEPT)


def between_mentions(
    label: str, heads: Sequence[int], tails: Sequence[int], file: str, tally: Tally
) -> list[Relation]:
    """Return the relations between all mentions of two concepts.

    A mention of both would have one with itself, which is counted and left out.

    Examples
    --------
    >>> relations = between_mentions("CID", [0, 3], [1], "", Tally())
    >>> [relation[1:3] for relation in relations]
    [(0, 1), (3, 1)]
    """
    pairs = list(itertools.product(heads, tails))
    relations = [Relation(label, head, tail) for head, tail in pairs if head != tail]
    tally.add(file, REFLEXIVE, len(pairs) - len(relations))
    return relations
