"""Convert the offsets of a BRAT file to positions in its text, for any convention of counting.

BRAT counts characters. Other tools count UTF-16 code units or bytes, count CR LF as one character,
or count the byte order mark. A convention assigns a width to every character of the text; the
cumulative sums of the widths map offsets to positions.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from medjax.text.readers._files import BYTE_ORDER_MARK


class TextBound(NamedTuple):
    """A text-bound annotation, that is, a ``T`` line.

    Attributes
    ----------
    identifier, label, text : str
        Identifier, label and covered text, as written in the line.
    fragments : list of (int, int)
        Start and end of each fragment, as written in the line.
    where : str
        File and number of the line.
    """

    identifier: str
    label: str
    fragments: list[tuple[int, int]]
    text: str
    where: str


class Convention(NamedTuple):
    """A convention of counting offsets.

    Attributes
    ----------
    unit : str
        What is counted.
    width : callable
        Returns the number of units of a character.
    one_line_end : bool
        Whether CR LF counts as one unit.
    counts_mark : bool
        Whether the byte order mark counts.
    """

    unit: str
    width: Callable[[str], int]
    one_line_end: bool
    counts_mark: bool

    @property
    def is_unusual(self) -> bool:
        """Whether the convention differs from counting all characters but the byte order mark."""
        return self.unit != _UNITS[0][0] or self.one_line_end or self.counts_mark

    def __str__(self) -> str:
        parts = [self.unit]
        parts += ["CR LF as one"] if self.one_line_end else []
        parts += ["the byte order mark too"] if self.counts_mark else []
        return ", ".join(parts)


_UNITS: tuple[tuple[str, Callable[[str], int]], ...] = (
    ("characters", lambda char: 1),
    ("UTF-16 code units", lambda char: 2 if char > "\uffff" else 1),
    ("bytes of UTF-8", lambda char: len(char.encode("utf-8", "surrogatepass"))),
)


def conventions(raw: str) -> Iterator[Convention]:
    """Yield the conventions that give different offsets in a text, plain characters first.

    Parameters
    ----------
    raw : str
        The text, including a byte order mark if it has one.
    """
    highest = max(raw.lstrip(BYTE_ORDER_MARK), default="")
    units = [_UNITS[0]]
    units += [_UNITS[1]] if highest > "\uffff" else []
    units += [_UNITS[2]] if highest > "\x7f" else []
    for unit, width in units:
        for one_line_end in (False, True) if "\r\n" in raw else (False,):
            for counts_mark in (False, True) if raw.startswith(BYTE_ORDER_MARK) else (False,):
                yield Convention(unit, width, one_line_end, counts_mark)


def locate(lines: Sequence[TextBound], raw: str) -> tuple[list[list[tuple[int, int]]], Convention]:
    """Return the positions in the text of ``T`` lines, and the convention of their offsets.

    The convention is the first under which the text of every line equals the text at its offsets.

    Parameters
    ----------
    lines : sequence of TextBound
        All ``T`` lines of a file.
    raw : str
        The text, including a byte order mark if it has one.

    Returns
    -------
    positions : list of list of (int, int)
        For each line, the start and end of its fragments, in characters of the text without the
        byte order mark.
    convention : Convention
        The convention.

    Raises
    ------
    ValueError
        If no convention fits all lines. The message describes the mismatch for plain characters.
    """
    text = raw.lstrip(BYTE_ORDER_MARK)
    first_problem = ""
    for convention in conventions(raw):
        sums = _sums(text, convention, len(raw) - len(text))
        positions: list[list[tuple[int, int]]] = []
        for line in lines:
            ranges = [_range(sums, start, end) for start, end in line.fragments]
            problem = _problem(line, ranges, text)
            if problem:
                first_problem = first_problem or problem
                break
            positions.append([place for place in ranges if place is not None])
        else:
            return positions, convention
    raise ValueError(first_problem)


def _sums(text: str, convention: Convention, nb_marks: int) -> Sequence[int]:
    mark = nb_marks * convention.width(BYTE_ORDER_MARK) if convention.counts_mark else 0
    if convention.unit == _UNITS[0][0] and not convention.one_line_end:
        return range(mark, mark + len(text) + 1)
    widths = [convention.width(char) for char in text]
    if convention.one_line_end:
        place = text.find("\r\n")
        while place >= 0:
            widths[place] = 0
            place = text.find("\r\n", place + 2)
    return list(accumulate(widths, initial=mark))


def _range(sums: Sequence[int], start: int, end: int) -> tuple[int, int] | None:
    # A character of width 0 is outside an entity that starts after it or ends before it.
    # An entity may begin with the byte order mark, before the text.
    first = max(bisect_right(sums, start) - 1, 0)
    stop = bisect_left(sums, end)
    within = stop < len(sums) and sums[stop] == end and (sums[first] == start or start < sums[0])
    return (first, stop) if within and first < stop else None


def _problem(line: TextBound, ranges: Sequence[tuple[int, int] | None], text: str) -> str:
    for (start, end), place in zip(line.fragments, ranges, strict=True):
        if place is None:
            return (
                f"{line.where}: found {start} {end}, expected START < END <= {len(text)}, the "
                "length of the text"
            )
    # BRAT writes a space between fragments, and spaces for line breaks.
    covered = " ".join(text[place[0] : place[1]] for place in ranges if place is not None)
    if _words(covered) != _words(line.text):
        return f"{line.where}: found the text {line.text!r}, expected {covered!r}, at its offsets"
    return ""


def _words(text: str) -> list[str]:
    return text.replace(BYTE_ORDER_MARK, "").split()
