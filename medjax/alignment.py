"""From entities by characters to spans of tokens, and back.

Tokens are given by their character offsets, the ``offset_mapping`` of a fast tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from medjax.tagging import TokenSpan, spans_to_tags
from medjax.text import Entity


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
