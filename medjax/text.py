"""Annotated text: what the readers return and the text components train on."""

from __future__ import annotations

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
