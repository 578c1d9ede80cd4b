"""From tokens to words, and from entities by characters to spans of words, and back.

Tokens are given by their character offsets, the ``offset_mapping`` of a fast tokenizer, words by
their own. What is said of tokens in `entities_to_spans` and the functions after it holds for words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from medjax.tagging import TokenSpan, spans_to_tags
from medjax.text import Entity, find_words


class Word(NamedTuple):
    """A stretch of text that gets one tag, and the token that the tag stands on.

    Attributes
    ----------
    start, end : int
        Place in the text, in characters, `end` exclusive.
    token : int
        Position of the first of its tokens.
    """

    start: int
    end: int
    token: int


def tokens_to_words(
    text: str, offsets: Sequence[tuple[int, int]], *, subtokens: bool = False
) -> list[Word]:
    """Return the words of a tokenized text.

    Words are those of `medjax.text.find_words`, whatever the tokenizer. Words that share a token
    are joined, and words without any token (characters that the tokenizer drops) are left out.

    Parameters
    ----------
    text : str
        The text.
    offsets : sequence of (int, int)
        Start and end of each token in characters, in the order of the text; equal for a token that
        stands for no text. White space at either end of a token is ignored.
    subtokens : bool
        Whether words are also cut wherever a token starts, so that each token is a word of its own
        (tokens that share a character are still one).

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
    first = taken = 0  # first piece that a token can still touch, first that is in no word yet
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
    """Return position, start and end of the tokens that stand for more than white space."""
    tokens: list[tuple[int, int, int]] = []
    for position, (start, end) in enumerate(offsets):
        while start < end and text[start].isspace():
            start += 1
        while start < end and text[end - 1].isspace():
            end -= 1
        if start == end:
            continue
        # The mark that some tokenizers put before a text counts as its first character.
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
    """Map entities from characters to tokens.

    A token belongs to an entity when they share a character. A token that two entities share goes
    to the one that starts first, an entity without a token of its own (cut off, for instance) is
    left out, and an empty token inside an entity splits it.

    Parameters
    ----------
    entities : iterable of Entity
        Entities that do not overlap, in any order.
    offsets : array of int, shape (tokens, 2)
        Start and end of each token in characters; equal for a token that stands for no text
        ([CLS], padding), which belongs to no entity.

    Returns
    -------
    list of TokenSpan
        In the order of the tokens.

    Raises
    ------
    ValueError
        If the offsets have another shape, or tokens with text do not come in the order of the text.

    Examples
    --------
    >>> entities_to_spans([Entity("Drug", 3, 10)], [(0, 0), (0, 2), (3, 6), (6, 10), (0, 0)])
    [TokenSpan(label='Drug', first=2, stop=4)]
    """
    waiting = sorted(entities, key=lambda entity: entity.start)
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
    """Return one tag a token for entities given by characters.

    Parameters
    ----------
    entities, offsets
        As in `entities_to_spans`, which says which token belongs to which entity.
    scheme : {"iob2", "bilou", "iobes", "io"}
        Tagging scheme.

    Returns
    -------
    list of str
        One tag a token, ``"O"`` for tokens that stand for no text.

    Raises
    ------
    ValueError
        As `entities_to_spans`, or if the scheme is unknown.

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
    """Map spans of tokens to characters.

    Parameters
    ----------
    spans : iterable of (label, first, stop)
        Spans in order that do not overlap, as `tags_to_spans` returns them.
    offsets : array of int, shape (tokens, 2)
        As in `entities_to_spans`.

    Returns
    -------
    tuple of Entity
        One entity a span, without overlaps; a span of empty tokens only has none.

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
            found = (label, first, stop)
            msg = f"span {found} found; expected 0 <= first < stop <= {len(pairs)} tokens"
            raise ValueError(msg)
        texts = [(start, end) for start, end in pairs[first:stop] if start < end]
        if not texts:
            continue
        # Byte-level tokenizers cut a character into tokens that all carry its offsets: two spans
        # may meet inside it, and the second then starts behind it.
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
            "offsets of the tokens go backwards in the text; expected start <= end and tokens in "
            "the order of one text (map the texts of a pair one by one)"
        )
        raise ValueError(msg)
    return [(start, end) for start, end in array.tolist()]
