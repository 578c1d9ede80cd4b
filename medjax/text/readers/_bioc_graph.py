"""Resolve the relations of a BioC document: by annotations and by concepts."""

from __future__ import annotations

from typing import Any

from medjax.text.document import Entity, Relation
from medjax.text.readers._dropped import LOST_RELATIONS, Tally
from medjax.text.readers._json import field
from medjax.text.readers._linked import (
    UNMENTIONED,
    UNNAMED_RELATION,
    between_mentions,
    concepts_of,
)
from medjax.text.readers._places import Mark

INFONS = "infons of annotations other than the label"
OTHER_ARITY = "relations of other than two nodes"
NESTED = "relations of relations"

_LABELS = ("relation", "relation type")
_ENDS = ("entity1", "entity2")


class Graph:
    """Collects the annotations of a document, then resolves its relations.

    Parameters
    ----------
    label : str
        Key of the infon with the label.
    file : str
        The file, for the counts.
    tally : Tally
        Counts the relations left out.
    """

    def __init__(self, label: str, file: str, tally: Tally) -> None:
        self.entities: list[Entity] = []
        self._label = label
        self._file = file
        self._tally = tally
        self._places: dict[str, list[int | None]] = {}  # None if the annotation was left out
        self._concepts: dict[str, list[int]] = {}
        self._relations: list[tuple[str, Any]] = []

    def add(self, annotation: Any, mark: Mark, start: int, end: int) -> None:
        """Add an annotation at a place in the text of the document."""
        place = len(self.entities)
        self.entities.append(Entity(mark.label, start, end))
        self._places.setdefault(_name(annotation), []).append(place)
        for key, value in annotation["infons"].items():
            if key != self._label:
                self._tally.add(self._file, INFONS)
                for concept in concepts_of(str(value)):
                    self._concepts.setdefault(concept, []).append(place)

    def add_lost(self, annotation: Any) -> None:
        """Add an annotation that was left out, so that relations may refer to it."""
        self._places.setdefault(_name(annotation), []).append(None)

    def relate_later(self, relations: list[tuple[str, Any]]) -> None:
        """Add relations and where they are; they may refer to annotations that come later."""
        self._relations += relations

    def relations(self) -> list[Relation]:
        """Return the relations between entities, by their places; count those left out.

        Raises
        ------
        ValueError
            If a relation refers to an annotation that is not there, or that is there twice.
        """
        related: dict[Relation, None] = {}
        for where, relation in self._relations:
            infons = field(relation, "infons", where, dict, default={})
            keys = (self._label, *_LABELS)
            label = next((str(infons[key]) for key in keys if infons.get(key)), UNNAMED_RELATION)
            nodes = field(relation, "nodes", where, list, default=[])
            if nodes:
                found = self._between_nodes(label, nodes, where)
            else:
                found = self._between_concepts(label, infons)
            related |= dict.fromkeys(found)
        return list(related)

    def _between_nodes(self, label: str, nodes: list[Any], where: str) -> list[Relation]:
        names = [str(field(node, "refid", where, str, int)) for node in nodes]
        of_relations = {_name(relation) for _, relation in self._relations} - {""}
        for name in names:
            known = self._places.get(name, [])
            if len(known) > 1 or (not known and name not in of_relations):
                msg = (
                    f"{where}: found a relation of {name!r}, which {len(known)} annotations are "
                    "called, expected the id of one annotation of the document"
                )
                raise ValueError(msg)
        if len(names) != 2:
            self._tally.add(self._file, OTHER_ARITY)
            return []
        if not all(name in self._places for name in names):
            self._tally.add(self._file, NESTED)
            return []
        head, tail = (self._places[name][0] for name in names)
        if head is None or tail is None:
            self._tally.add(self._file, LOST_RELATIONS)
            return []
        return [Relation(label, head, tail)]

    def _between_concepts(self, label: str, infons: dict[str, Any]) -> list[Relation]:
        ends = [infons[key] for key in _ENDS if key in infons]
        if not ends:
            ends = [infons[key] for key in infons if key not in (self._label, *_LABELS)]
        mentions = [self._concepts.get(str(end), []) for end in ends]
        if len(mentions) != 2 or not all(mentions):
            self._tally.add(self._file, UNMENTIONED)
            return []
        return between_mentions(label, mentions[0], mentions[1], self._file, self._tally)


def _name(record: Any) -> str:
    return str(record.get("id", "")) if isinstance(record, dict) else ""
