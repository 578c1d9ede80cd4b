"""Annotated text: what the readers return and the text components train on."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from typing import NamedTuple

ABBREVIATIONS = frozenset({"Dr", "Mr", "Mrs", "Ms", "Prof", "St", "No", "vs", "approx", "Fig"})
"""Words whose full stop `split_sentences` does not take for the end of a sentence."""

# A line break, or the white space between . ? ! and a capital letter or a digit.
_BOUNDARY = re.compile(r"\n|(?<=[.?!])\s+(?=[^\W_])")
_LAST_WORD = re.compile(r"(\w+)\.\s*$")
_LIST_NUMBER = re.compile(r"\s*\d+\.\s*")


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


def split_sentences(document: Document) -> list[Document]:
    """Cut a document into sentences, never inside an entity.

    A sentence ends at a line break, and at ``.``, ``?`` or ``!`` before white space and a capital
    letter or a digit. A full stop ends nothing after a word of `ABBREVIATIONS`, after a single
    letter (an initial) and after the number that opens a list item. This is a rule of thumb: other
    abbreviations before a capital are taken for an end, and an end before a small letter is missed.

    Parameters
    ----------
    document : Document
        Text of any length with its entities.

    Returns
    -------
    list of Document
        Sentences that are not blank, without white space around them, their entities counted from
        the start of the sentence, and named ``"name#1"``, ``"name#2"`` and so on. No entity is
        lost.

    Examples
    --------
    >>> text = "Dr. Roe saw him. No fever."
    >>> for sentence in split_sentences(Document(text, (Entity("Sign", 20, 25),), "note")):
    ...     print(sentence.name, sentence.text, sentence.entities)
    note#1 Dr. Roe saw him. ()
    note#2 No fever. (Entity(label='Sign', start=3, end=8, score=None),)
    """
    sentences: list[Document] = []
    waiting = list(reversed(document.entities))
    for start, end in _sentence_ranges(document):
        entities = []
        while waiting and waiting[-1].end <= end:
            entities.append(waiting.pop())
        piece = document.text[start:end]
        # White space that an entity covers stays, so that the entity does.
        left = min([start + len(piece) - len(piece.lstrip()), *(e.start for e in entities)])
        right = max([start + len(piece.rstrip()), *(e.end for e in entities)])
        if left >= right:
            continue
        rebased = tuple(e._replace(start=e.start - left, end=e.end - left) for e in entities)
        name = f"{document.name}#{len(sentences) + 1}"
        sentences.append(Document(document.text[left:right], rebased, name))
    return sentences


def _sentence_ranges(document: Document) -> list[tuple[int, int]]:
    cuts = [0]
    entities = iter(document.entities)
    entity = next(entities, None)
    for match in _BOUNDARY.finditer(document.text):
        cut = match.end()
        while entity is not None and entity.end <= cut:
            entity = next(entities, None)
        in_entity = entity is not None and entity.start < cut
        if not in_entity and ("\n" in match[0] or _ends_sentence(document.text, cuts[-1], cut)):
            cuts.append(cut)
    return list(zip(cuts, [*cuts[1:], len(document.text)], strict=True))


def _ends_sentence(text: str, start: int, cut: int) -> bool:
    if text[cut].islower():
        return False
    sentence = text[start:cut]
    word = _LAST_WORD.search(sentence)
    if word is None:
        return True
    is_initial = len(word[1]) == 1 and word[1].isalpha()
    is_list_number = _LIST_NUMBER.fullmatch(sentence) is not None
    return not (is_initial or is_list_number or word[1] in ABBREVIATIONS)
