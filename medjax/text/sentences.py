"""Split documents into sentences."""

from __future__ import annotations

import logging
import re

from medjax.text.document import Document, Relation

__all__ = ["ABBREVIATIONS", "split_sentences"]

ABBREVIATIONS = frozenset({"Dr", "Mr", "Mrs", "Ms", "Prof", "St", "No", "vs", "approx", "Fig"})
"""Words after which `split_sentences` does not take a full stop for the end of a sentence."""

_LOGGER = logging.getLogger("medjax")

# A line break, or the white space between . ? ! and a capital letter or a digit.
_BOUNDARY = re.compile(r"\n|(?<=[.?!])\s+(?=[^\W_])")
_LAST_WORD = re.compile(r"(\w+)\.\s*$")
_LIST_NUMBER = re.compile(r"\s*\d+\.\s*")


def split_sentences(document: Document) -> list[Document]:
    """Split a document into sentences, never inside an entity.

    A sentence ends at a line break, and at ``.``, ``?`` or ``!`` before white space and a capital
    letter or a digit. A full stop does not end a sentence after a word of `ABBREVIATIONS`, after a
    single letter (an initial) or after the number of a list item. This is a rule of thumb: it cuts
    after any other abbreviation that precedes a capital, and does not cut before a small letter.

    Parameters
    ----------
    document : Document
        Text of any length, with its entities, in any order, and relations.

    Returns
    -------
    list of Document
        The sentences that are not blank, without surrounding white space and named ``"name#1"``,
        ``"name#2"`` and so on. The offsets of their entities count from the start of the sentence,
        and their relations name the entities by their places in it. No entity is lost. Relations
        between entities of two sentences are left out, and a warning says how many.

    Examples
    --------
    >>> from medjax.text import Entity
    >>> text = "Dr. Roe saw him. No fever."
    >>> for sentence in split_sentences(Document(text, (Entity("Sign", 20, 25),), "note")):
    ...     print(sentence.name, sentence.text, sentence.entities)
    note#1 Dr. Roe saw him. ()
    note#2 No fever. (Entity(label='Sign', start=3, end=8, score=None),)
    """
    document = _in_order(document)
    sentences: list[Document] = []
    waiting = list(reversed(document.entities))
    nb_relations = 0
    for start, end in _sentence_ranges(document):
        entities, first = [], len(document.entities) - len(waiting)
        while waiting and waiting[-1].end <= end:
            entities.append(waiting.pop())
        piece = document.text[start:end]
        # White space that is part of an entity is not stripped.
        left = min([start + len(piece) - len(piece.lstrip()), *(e.start for e in entities)])
        right = max([start + len(piece.rstrip()), *(e.end for e in entities)])
        if left >= right:
            continue
        rebased = tuple(e._replace(start=e.start - left, end=e.end - left) for e in entities)
        name = f"{document.name}#{len(sentences) + 1}"
        relations = _relations_of(document, first, first + len(entities))
        nb_relations += len(relations)
        sentences.append(Document(document.text[left:right], rebased, name, relations))
    if nb_left_out := len(document.relations) - nb_relations:
        _LOGGER.warning(
            f"{document.name or repr(document.text[:40])}: {nb_left_out} of "
            f"{len(document.relations)} relations are between two sentences and left out"
        )
    return sentences


def _in_order(document: Document) -> Document:
    """Return the document with its entities in the order of the text."""
    order = sorted(range(len(document.entities)), key=lambda n: document.entities[n][1:3])
    place = {before: now for now, before in enumerate(order)}
    return document._replace(
        entities=tuple(document.entities[n] for n in order),
        relations=tuple(
            relation._replace(head=place[relation.head], tail=place[relation.tail])
            for relation in document.relations
        ),
    )


def _relations_of(document: Document, first: int, stop: int) -> tuple[Relation, ...]:
    """Return the relations between some of the entities, by their places among these."""
    return tuple(
        relation._replace(head=relation.head - first, tail=relation.tail - first)
        for relation in document.relations
        if first <= relation.head < stop and first <= relation.tail < stop
    )


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
