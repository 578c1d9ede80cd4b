"""Collect the entities and relations of a document by the identifiers of its file."""

from __future__ import annotations

from collections.abc import Iterator

from medjax.text.document import Document, Entity, Relation
from medjax.text.readers._dropped import UNCLEAR_RELATIONS, Tally
from medjax.text.readers._linked import linked_document

_LEFT_OUT = -1  # the place of an entity that is not in the document


class Annotations:
    """Entities and relations of a document, before overlaps are resolved.

    A relation refers to entities by identifiers, and may come before them.

    Parameters
    ----------
    file : str
        File that what is left out is counted for.
    tally : Tally
        Counts it.

    Examples
    --------
    >>> tally = Tally()
    >>> annotations = Annotations("a.ann", tally)
    >>> annotations.add_relation("Treats", "T2", "T1")
    >>> annotations.add_entity("T1", Entity("Sign", 8, 13))
    >>> annotations.add_entity("T2", Entity("Drug", 0, 7))
    >>> annotations.document("Aspirin fever", "a").relations
    (Relation(label='Treats', head=0, tail=1, score=None),)
    >>> tally.dropped()
    []
    """

    def __init__(self, file: str, tally: Tally) -> None:
        self._file, self._tally = file, tally
        self._entities: list[Entity] = []
        self._places: dict[str, int | None] = {}  # None for an identifier that is there twice
        self._links: list[tuple[str, str, str, float | None]] = []

    def add_entity(self, identifier: str | None, entity: Entity) -> None:
        """Add an entity, with ``start < end``; without an identifier, it has no relations."""
        self._add_place(identifier, len(self._entities))
        self._entities.append(entity)

    def leave_out(self, identifier: str | None) -> None:
        """Say that an entity is not in the document, so that its relations count as lost."""
        self._add_place(identifier, _LEFT_OUT)

    def add_alias(self, identifier: str, of: str) -> bool:
        """Let another identifier stand for an entity; return whether there is such an entity."""
        place = self._places.get(of)
        if place is not None:
            self._add_place(identifier, place)
        return place is not None

    def _add_place(self, identifier: str | None, place: int) -> None:
        if identifier is not None:
            self._places[identifier] = None if identifier in self._places else place

    def add_relation(self, label: str, head: str, tail: str, score: float | None = None) -> None:
        """Add a relation between the entities of two identifiers."""
        self._links.append((label, head, tail, score))

    def document(self, text: str, name: str, *, overlapping: bool = False) -> Document:
        """Return the document, and count what it leaves out.

        Parameters
        ----------
        text : str
            Text of the document.
        name : str
            Name of the document.
        overlapping : bool
            Keep all entities, rather than the longest of those that overlap.
        """
        return linked_document(
            text,
            self._entities,
            self._relations(),
            name,
            overlapping=overlapping,
            file=self._file,
            tally=self._tally,
        )

    def _relations(self) -> Iterator[Relation]:
        for label, *ends, score in self._links:
            head, tail = (self._places.get(end) for end in ends)
            if head is None or tail is None:
                self._tally.add(self._file, UNCLEAR_RELATIONS)
            else:
                yield Relation(label, head, tail, score)
