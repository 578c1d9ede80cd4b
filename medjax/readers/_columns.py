"""The layout of files in columns: what separates them, header, comments, which column is which."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medjax.readers._files import split_lines

PADDING = " \t\r\n\v\f"
"""White space that belongs to no cell. A no-break space is not in it: it can be a token."""

_HEADER_TOKENS = frozenset({"token", "tokens", "word", "words", "form", "text", "mot", "mots"})
_HEADER_TAGS = {
    "annotation", "bilou", "bio", "bio_tag", "class", "entities", "entity", "etiquette", "iob",
    "iob2", "label", "labels", "ne", "ne_tag", "ner", "ner-tag", "ner_tag", "ner_tags", "tag",
    "tags", "étiquette",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?[0-9]+([-.,:/][0-9]+)*")
_DELIMITERS = (",", ";", "\t")

Sentence = Sequence[Sequence[str]]
"""The cells of the lines of a sentence."""


class Row(NamedTuple):
    """A line of a file.

    Attributes
    ----------
    number : int
        Its number, from 1.
    cells : list of str
        Its cells without padding, none for a blank line.
    """

    number: int
    cells: list[str]


def split_rows(text: str, separator: str | None, *, is_csv: bool) -> list[Row]:
    """Split a text in lines and cells.

    Parameters
    ----------
    text : str
        What a file holds.
    separator : str or None
        What separates cells. With None these are tabs in a line that has one and spaces in others,
        or commas or semicolons where those make columns and tabs and spaces do not.
    is_csv : bool
        Whether the file calls itself CSV, so that commas and semicolons are tried first.
    """
    lines = split_lines(text)
    split = _splitter([line for line in lines if line.strip()], separator, is_csv=is_csv)
    rows = []
    for number, line in enumerate(lines, start=1):
        cells = split(line) if line.strip() else []
        rows.append(Row(number, cells if any(cells) else []))
    return rows


def _splitter(
    lines: Sequence[str], separator: str | None, *, is_csv: bool
) -> Callable[[str], list[str]]:
    if separator is not None:
        return lambda line: _stripped(line.rstrip(PADDING).split(separator))
    nb_single = sum(len(_by_white_space(line)) == 1 for line in lines)
    if is_csv or 2 * nb_single > len(lines):
        found = {delimiter: _regular(lines, delimiter) for delimiter in _DELIMITERS}
        best = max(_DELIMITERS, key=lambda delimiter: found[delimiter])
        if 2 * found[best] > len(lines):
            return lambda line: _by_delimiter(line, best)
    return _by_white_space


def _regular(lines: Sequence[str], delimiter: str) -> int:
    """Return how many lines have the same number of cells, not counting lines of one cell."""
    widths = Counter(len(_by_delimiter(line, delimiter)) for line in lines)
    del widths[1]
    return max(widths.values(), default=0)


def _by_delimiter(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    if len(cells) < 2:  # a quotation mark as token, not quoted itself
        cells = line.split(delimiter)
    return _stripped(cells)


def _by_white_space(line: str) -> list[str]:
    if "\t" in line:
        return _stripped(line.rstrip(PADDING).split("\t"))
    # Not split() without argument: a token may hold a no-break space.
    return [cell for cell in line.strip(PADDING).split(" ") if cell]


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip(PADDING) for cell in cells]


def is_header(cells: Sequence[str], tag_column: int) -> bool:
    """Whether a line names the columns instead of filling them.

    Examples
    --------
    >>> is_header(["Sentence #", "Word", "Tag"], -1), is_header(["Word", "O"], -1)
    (True, False)
    """
    names = [cell.lower() for cell in cells]
    return (
        -len(names) <= tag_column < len(names)
        and names[tag_column] in _HEADER_TAGS
        and not _HEADER_TOKENS.isdisjoint(names)
    )


def find_token_column(sentences: Sequence[Sentence], tag_column: int) -> int:
    """Return the column of the tokens: the first one, or the second behind a column that counts.

    Parameters
    ----------
    sentences : sequence of sequence of sequence of str
        The cells of each line of each sentence.
    tag_column : int
        Column of the tags; a negative one counts from the end.

    Raises
    ------
    ValueError
        If that column holds numbers nearly everywhere, or one value in each sentence.

    Examples
    --------
    >>> find_token_column([[["1", "No", "O"], ["2", "fever", "B-Sign"]]], -1)
    1
    """
    width = min((len(cells) for sentence in sentences for cells in sentence), default=0)
    if width < 2:
        return 0  # the lines are refused one by one
    candidates = [column for column in range(width) if column != tag_column % width]
    column = candidates[0]
    if len(candidates) > 1 and _counts_tokens(_column(sentences, column)):
        column = candidates[1]
    found = _no_tokens(_column(sentences, column), is_only=len(candidates) == 1)
    if found is None:
        return column
    others = [
        other
        for other in candidates
        if other > column and _no_tokens(_column(sentences, other), is_only=False) is None
    ]
    if others:
        sample = _sample(_column(sentences, others[0]))
        remedy = f"give token_column={others[0]}, where there is {sample}"
    else:
        remedy = f"give the column as token_column, {column} if these are the tokens"
    msg = f"found {found} in column {column}, expected tokens; {remedy}"
    raise ValueError(msg)


def _column(sentences: Sequence[Sentence], column: int) -> list[list[str]]:
    return [[cells[column] for cells in sentence] for sentence in sentences]


def _counts_tokens(values: Sequence[Sequence[str]]) -> bool:
    def counts(sentence: Sequence[str], start: int) -> bool:
        return all(
            cell.isascii() and cell.isdigit() and len(cell) < 10 and int(cell) == number
            for number, cell in enumerate(sentence, start)
        )

    # One line alone counts nothing: "1" may be a token.
    return sum(map(len, values)) > 1 and any(
        all(counts(sentence, start) for sentence in values) for start in (0, 1)
    )


def _no_tokens(values: Sequence[Sequence[str]], *, is_only: bool) -> str | None:
    """Return what a column holds if these cannot be tokens, else None."""
    cells = [cell for sentence in values for cell in sentence]
    nb_numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in cells)
    if len(cells) > 2 and nb_numbers >= 0.9 * len(cells):
        return f"numbers ({_sample(values)})"
    longer = [sentence for sentence in values if len(sentence) > 1]
    is_constant = all(len(set(sentence) - {""}) <= 1 for sentence in longer)
    if not is_only and is_constant and sum(map(len, longer)) > 2:
        return f"one value for a whole sentence ({_sample(longer)})"
    return None


def _sample(values: Sequence[Sequence[str]]) -> str:
    different = dict.fromkeys(cell for sentence in values for cell in sentence if cell)
    return ", ".join(map(repr, list(different)[:3]))
