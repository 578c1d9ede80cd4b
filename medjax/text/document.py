"""Annotated text: what the readers return and the text components train on."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple


class Entity(NamedTuple):
    """A labelled stretch of text, by character offsets into its document.

    Attributes
    ----------
    label : str
        Kind of entity, for instance ``"Disease"``.
    start, end : int
        Offsets in characters (Unicode code points), `end` exclusive.
    score : float or None
        Probability between 0 and 1 when a model predicted the entity, None when annotated.

    Examples
    --------
    >>> Entity("Drug", 0, 7)
    Entity(label='Drug', start=0, end=7, score=None)
    """

    label: str
    start: int
    end: int
    score: float | None = None


class Document(NamedTuple):
    """A text and its entities, in the order of their start; entities do not overlap.

    Attributes
    ----------
    text : str
        The text the offsets of the entities count in.
    entities : tuple of Entity
        The annotations.
    name : str
        Where the document comes from, for messages; a file's name or a line of it.
    """

    text: str
    entities: tuple[Entity, ...] = ()
    name: str = ""


def without_overlaps(entities: Iterable[Entity]) -> tuple[tuple[Entity, ...], int]:
    """Keep the longest of entities that overlap.

    Entities are taken from the longest to the shortest, of equal ones the first in the text, of
    those the first given; one that overlaps an entity already taken is dropped. So what is kept
    does not overlap, and all that is dropped overlaps something kept that is at least as long.

    Parameters
    ----------
    entities : iterable of Entity
        Entities in any order, each with ``start < end``.

    Returns
    -------
    kept : tuple of Entity
        In the order of the text.
    nb_dropped : int
        How many were left out.

    Examples
    --------
    >>> without_overlaps([Entity("Body", 5, 9), Entity("Disease", 0, 9)])
    ((Entity(label='Disease', start=0, end=9, score=None),), 1)
    """
    longest_first = sorted(entities, key=lambda entity: (entity.start - entity.end, entity.start))
    kept: list[Entity] = []
    starts: list[int] = []  # of what is kept, sorted as `kept` is
    for entity in longest_first:
        place = bisect_left(starts, entity.start)
        before_is_free = place == 0 or kept[place - 1].end <= entity.start
        after_is_free = place == len(kept) or entity.end <= kept[place].start
        if before_is_free and after_is_free:
            kept.insert(place, entity)
            starts.insert(place, entity.start)
    return tuple(kept), len(longest_first) - len(kept)
