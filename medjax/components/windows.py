"""Split texts that are too long for a model into overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from medjax.models.tokenizer import Encoding
from medjax.text.alignment import Word

__all__ = ["Window", "split_windows"]


class Window(NamedTuple):
    """Consecutive tokens of a text, surrounded by special tokens.

    Attributes
    ----------
    ids : list of int
        Token ids, special tokens included.
    first_word, stop_word : int
        Range of the words that are tagged in this window; no other gives them more context.
    positions : list of int
        Position in `ids` of the token on which each of these words is tagged.
    """

    ids: list[int]
    first_word: int
    stop_word: int
    positions: list[int]


def split_windows(encoding: Encoding, words: Sequence[Word], max_length: int) -> list[Window]:
    """Return the windows of a text: one if it fits, otherwise several that overlap by a quarter.

    Each word is tagged in exactly one window.

    Parameters
    ----------
    encoding : Encoding
        Tokens of the text, not truncated.
    words : sequence of Word
        Words of the text.
    max_length : int
        Largest number of tokens in a window, special tokens included.
    """
    ids = encoding.ids
    inner = [position for position, flag in enumerate(encoding.special_tokens_mask) if not flag]
    if len(ids) <= max_length or not inner:
        return [Window(ids, 0, len(words), [word.token for word in words])]
    begin, stop = inner[0], inner[-1] + 1
    before, after = ids[:begin], ids[stop:]
    size = max_length - len(before) - len(after)
    windows: list[Window] = []
    first_word = 0
    for first, last, next_begin in _ranges(begin, stop, size):
        stop_word = first_word
        while stop_word < len(words) and words[stop_word].token < next_begin:
            stop_word += 1
        shift = len(before) - first
        positions = [word.token + shift for word in words[first_word:stop_word]]
        windows.append(Window(before + ids[first:last] + after, first_word, stop_word, positions))
        first_word = stop_word
    return windows


def _ranges(begin: int, stop: int, size: int) -> Iterator[tuple[int, int, int]]:
    """Yield each window's range of tokens, and the first token that is tagged in the next."""
    overlap = size // 4
    first = begin
    while first + size < stop:
        last = first + size
        yield first, last, last - (overlap - overlap // 2)
        first = last - overlap
    yield first, stop, stop
