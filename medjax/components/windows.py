"""Words of a tokenised text, and the windows a long one is read in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from medjax.models.tokenizer import Encoding


class Word(NamedTuple):
    """A word and its tokens.

    Attributes
    ----------
    start, end : int
        Place in the text, in characters, `end` exclusive.
    tokens : tuple of int
        Positions of its tokens.
    """

    start: int
    end: int
    tokens: tuple[int, ...]


def read_words(encoding: Encoding) -> list[Word]:
    """Return the words of a text, as the tokenizer's pre-tokeniser cut them."""
    words: list[Word] = []
    last_id: int | None = None
    for position, (word_id, (start, end)) in enumerate(
        zip(encoding.word_ids, encoding.offsets, strict=True)
    ):
        if start == end:
            continue  # special tokens and those that stand for no character
        if word_id is not None and word_id == last_id:
            words[-1] = Word(words[-1].start, end, (*words[-1].tokens, position))
        else:
            words.append(Word(start, end, (position,)))
        last_id = word_id
    return words


class Window(NamedTuple):
    """Some consecutive tokens of a text, with the special tokens around them.

    Attributes
    ----------
    text : int
        Number of the text.
    ids : list of int
        Token ids, special tokens included.
    offset : int
        Position in the text's encoding minus position in the window.
    first_kept, stop_kept : int
        Positions in the window for which it is the window with the most context.
    """

    text: int
    ids: list[int]
    offset: int
    first_kept: int
    stop_kept: int


def split_windows(text: int, encoding: Encoding, max_length: int) -> Iterator[Window]:
    """Yield the windows of a text: one if it fits, else several that overlap by a quarter.

    Parameters
    ----------
    text : int
        Number of the text.
    encoding : Encoding
        The whole text.
    max_length : int
        Tokens of a window, special tokens included.
    """
    special = encoding.special_tokens_mask
    inner = [position for position, flag in enumerate(special) if not flag]
    if len(encoding.ids) <= max_length or not inner:
        yield Window(text, encoding.ids, 0, 0, len(encoding.ids))
        return
    begin, stop = inner[0], inner[-1] + 1
    before, after = encoding.ids[:begin], encoding.ids[stop:]
    size = max_length - len(before) - len(after)
    overlap = size // 4
    first = begin
    while True:
        last = min(first + size, stop)
        ids = before + encoding.ids[first:last] + after
        kept_from = first if first == begin else first + overlap // 2
        kept_to = last if last == stop else last - (overlap - overlap // 2)
        offset = first - len(before)
        yield Window(text, ids, offset, kept_from - offset, kept_to - offset)
        if last == stop:
            return
        first = last - overlap
