"""Map tokens to words, entities to spans of tokens or words, and such spans back to entities.

Entities are given by character offsets, and so are tokens (the ``offset_mapping`` of a fast
tokenizer) and words. `entities_to_spans` and the functions after it speak of tokens but take the
offsets of words as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medjax.text.document import Entity, without_overlaps
from medjax.text.tagging import TokenSpan, spans_to_tags
from medjax.text.words import find_words

__all__ = ["Word", "entities_to_spans", "entities_to_tags", "spans_to_entities", "tokens_to_words"]


class Word(NamedTuple):
    """A stretch of text that gets one tag, and the token that carries the tag.

    Attributes
    ----------
    start, end : int
        Offsets in the text, in characters, `end` exclusive.
    token : int
        Position of its first token.

    Examples
    --------
    >>> word = Word(start=0, end=5, token=1)
    >>> "fever and cough"[word.start : word.end]
    'fever'
    """

    start: int
    end: int
    token: int


def tokens_to_words(
    text: str, offsets: Sequence[tuple[int, int]], *, subtokens: bool = False
) -> list[Word]:
    """Return the words of a tokenized text.

    Words are those of `medjax.text.find_words`, regardless of the tokenizer. Words that share a
    token are joined, and words without any token (characters that the tokenizer drops) are left
    out.

    Parameters
    ----------
    text : str
        The text.
    offsets : sequence of (int, int)
        Start and end of each token in characters, in the order of the text; equal for a token that
        covers no text. White space at either end of a token is ignored.
    subtokens : bool
        Whether to cut words wherever a token starts, so that each token is a word of its own
        (tokens that share a character still form one word).

    Returns
    -------
    list of Word
        In the order of the text; they do not overlap.

    Examples
    --------
    >>> tokens_to_words("l'HTA,", [(0, 2), (2, 3), (3, 5), (5, 6)])
    [Word(start=0, end=2, token=0), Word(start=2, end=5, token=1), Word(start=5, end=6, token=3)]
    """
    tokens = _tokens_with_text(text, offsets)
    pieces = find_words(text)
    if subtokens:
        pieces = _cut(pieces, [start for _, start, _ in tokens])
    words: list[Word] = []
    first = taken = 0  # the first piece that a token can still touch; the first not yet in a word
    for position, start, end in tokens:
        while first < len(pieces) and pieces[first][1] <= start:
            first += 1
        stop = first
        while stop < len(pieces) and pieces[stop][0] < end:
            stop += 1
        if stop == first:
            continue
        if first >= taken:
            words.append(Word(pieces[first][0], pieces[stop - 1][1], position))
        elif stop > taken:
            words[-1] = words[-1]._replace(end=pieces[stop - 1][1])
        taken = max(taken, stop)
    return words


def _tokens_with_text(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return position, start and end of the tokens that cover more than white space."""
    tokens: list[tuple[int, int, int]] = []
    for position, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start == end:
            continue
        # Some tokenizers put a mark before a text, with the offsets of its first character.
        if tokens and tokens[-1][1] == start and tokens[-1][2] < end:
            tokens.pop()
        tokens.append((position, start, end))
    return tokens


def _cut(pieces: list[tuple[int, int]], starts: list[int]) -> list[tuple[int, int]]:
    """Return the pieces, cut at those of the sorted `starts` that lie inside one."""
    cut: list[tuple[int, int]] = []
    number = 0
    for start, end in pieces:
        while number < len(starts) and starts[number] < end:
            if starts[number] > start:
                cut.append((start, starts[number]))
                start = starts[number]
            number += 1
        cut.append((start, end))
    return cut


def entities_to_spans(entities: Iterable[Entity], offsets: npt.ArrayLike) -> list[TokenSpan]:
    """Return the spans of tokens that entities cover.

    A token belongs to an entity if they share a character. Of entities that overlap, the longest is
    kept, as `medjax.text.without_overlaps` does; a token that two of the others share belongs to
    the one that starts first. An entity without a token of its own (for instance because the tokens
    were truncated) is left out, and an empty token inside an entity splits it.

    Parameters
    ----------
    entities : iterable of Entity
        Entities in any order.
    offsets : array of int, shape (tokens, 2)
        Start and end of each token in characters; equal for a token that covers no text ([CLS],
        padding), which belongs to no entity.

    Returns
    -------
    list of TokenSpan
        In the order of the tokens.

    Raises
    ------
    ValueError
        If the offsets have another shape, or the tokens are not in the order of the text.

    Examples
    --------
    >>> entities_to_spans([Entity("Drug", 3, 10)], [(0, 0), (0, 2), (3, 6), (6, 10), (0, 0)])
    [TokenSpan(label='Drug', first=2, stop=4)]
    >>> entities_to_spans([Entity("Body", 0, 5), Entity("Sign", 0, 10)], [(0, 5), (6, 10)])
    [TokenSpan(label='Sign', first=0, stop=2)]
    """
    waiting, _ = without_overlaps(entities)
    spans: list[TokenSpan] = []
    index, owner_of_last = 0, -1
    for position, (start, end) in enumerate(_check_offsets(offsets)):
        if start == end:
            owner_of_last = -1
            continue
        while index < len(waiting) and waiting[index].end <= start:
            index += 1
        if index == len(waiting) or waiting[index].start >= end:
            owner_of_last = -1
        elif index == owner_of_last:
            spans[-1] = spans[-1]._replace(stop=position + 1)
        else:
            spans.append(TokenSpan(waiting[index].label, position, position + 1))
            owner_of_last = index
    return spans


def entities_to_tags(entities: Iterable[Entity], offsets: npt.ArrayLike, scheme: str) -> list[str]:
    """Return one tag per token for entities given by character offsets.

    Parameters
    ----------
    entities, offsets
        As for `entities_to_spans`, which defines which token belongs to which entity.
    scheme : {"iob2", "bilou", "iobes", "io"}
        Tagging scheme.

    Returns
    -------
    list of str
        One tag per token, ``"O"`` for tokens that cover no text.

    Raises
    ------
    ValueError
        As `entities_to_spans` does, or if the scheme is unknown.

    Examples
    --------
    >>> entities_to_tags([Entity("Drug", 3, 10)], [(0, 0), (0, 2), (3, 6), (6, 10)], "bilou")
    ['O', 'O', 'B-Drug', 'L-Drug']
    """
    pairs = _check_offsets(offsets)
    return spans_to_tags(entities_to_spans(entities, pairs), len(pairs), scheme)


def spans_to_entities(
    spans: Iterable[tuple[str, int, int]], offsets: npt.ArrayLike
) -> tuple[Entity, ...]:
    """Return the entities that spans of tokens stand for.

    Parameters
    ----------
    spans : iterable of (label, first, stop)
        Spans in order, without overlaps, as `medjax.text.tagging.tags_to_spans` returns them.
    offsets : array of int, shape (tokens, 2)
        As for `entities_to_spans`.

    Returns
    -------
    tuple of Entity
        One entity per span, without overlaps; none for a span of empty tokens.

    Raises
    ------
    ValueError
        If the offsets have another shape or order, or a span is outside the tokens.

    Examples
    --------
    >>> spans_to_entities([("Drug", 2, 4)], [(0, 0), (0, 2), (3, 6), (6, 10)])
    (Entity(label='Drug', start=3, end=10, score=None),)
    """
    pairs = _check_offsets(offsets)
    entities: list[Entity] = []
    last_end = 0
    for label, first, stop in spans:
        if not 0 <= first < stop <= len(pairs):
            span = (label, first, stop)
            msg = f"found the span {span}; expected 0 <= first < stop <= {len(pairs)} tokens"
            raise ValueError(msg)
        texts = [(start, end) for start, end in pairs[first:stop] if start < end]
        if not texts:
            continue
        # Byte-level tokenizers cut a character into several tokens, each with the offsets of the
        # character. Two spans may meet inside it; the second then starts after it.
        start, end = max(texts[0][0], last_end), texts[-1][1]
        if start < end:
            entities.append(Entity(label, start, end))
            last_end = end
    return tuple(entities)


def _check_offsets(offsets: npt.ArrayLike) -> Sequence[tuple[int, int]]:
    array = np.asarray(offsets)
    if array.size == 0:
        return []
    if array.ndim != 2 or array.shape[1] != 2 or not np.issubdtype(array.dtype, np.integer):
        msg = (
            f"offsets have shape {array.shape} and type {array.dtype}; "
            "expected integers of shape (tokens, 2)"
        )
        raise ValueError(msg)
    texts = array[array[:, 0] != array[:, 1]]
    if (texts[:, 0] > texts[:, 1]).any() or (np.diff(texts, axis=0) < 0).any():
        msg = (
            "the offsets of the tokens go backwards in the text; expected start <= end and tokens "
            "in the order of one text (map the two texts of a pair separately)"
        )
        raise ValueError(msg)
    return [(start, end) for start, end in array.tolist()]
