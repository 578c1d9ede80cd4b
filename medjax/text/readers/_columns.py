"""Recognise the layout of files in columns: separators, the header, the column of the tokens."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medjax.text.readers._files import split_lines

PADDING = " \t\r\n\v\f"
"""White space around cells. It does not include the no-break space, which can be a token."""

_HEADER_TOKENS = frozenset({"token", "tokens", "word", "words", "form", "text", "mot", "mots"})
_HEADER_TAGS = {
    "annotation", "bilou", "bio", "bio_tag", "class", "entities", "entity", "etiquette", "iob",
    "iob2", "label", "labels", "ne", "ne_tag", "ner", "ner-tag", "ner_tag", "ner_tags", "tag",
    "tags", "étiquette",
}  # fmt: skip
_NUMBER = re.compile(r"[-+]?[0-9]+([-.,:/][0-9]+)*")
_TAG = re.compile(r"[BIESLUMWO]?|[BIESLUMW][-_:./|].*|.*[-_:./|][BIESLUMW]", re.IGNORECASE)
_DELIMITERS = (",", ";", "\t")

Sentence = Sequence[Sequence[str]]
"""The cells of the lines of a sentence."""


class Row(NamedTuple):
    """A line of a file.

    Attributes
    ----------
    number : int
        Line number, from 1.
    cells : list of str
        The cells, without surrounding white space; empty for a blank line.
    """

    number: int
    cells: list[str]


def split_rows(text: str, separator: str | None, *, is_csv: bool) -> list[Row]:
    r"""Split a text into lines and cells.

    Parameters
    ----------
    text : str
        Content of a file.
    separator : str or None
        Separator of the cells. None stands for tabs in lines that have any and spaces in others,
        or for commas or semicolons if they make columns and tabs and spaces do not.
    is_csv : bool
        Whether the file has the suffix .csv, so that commas and semicolons are tried first.

    Examples
    --------
    >>> split_rows("No O\nfever B-Sign", None, is_csv=False)
    [Row(number=1, cells=['No', 'O']), Row(number=2, cells=['fever', 'B-Sign'])]
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
        nb_regular = {delimiter: _nb_regular(lines, delimiter) for delimiter in _DELIMITERS}
        best = max(_DELIMITERS, key=lambda delimiter: nb_regular[delimiter])
        if 2 * nb_regular[best] > len(lines):
            return lambda line: _by_delimiter(line, best)
    return _by_white_space


def _nb_regular(lines: Sequence[str], delimiter: str) -> int:
    """Return the number of lines with the most common number of cells other than one."""
    widths = Counter(len(_by_delimiter(line, delimiter)) for line in lines)
    del widths[1]
    return max(widths.values(), default=0)


def _by_delimiter(line: str, delimiter: str) -> list[str]:
    try:
        cells = next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        cells = []
    if len(cells) < 2:  # for instance, the token is a quotation mark that is not quoted itself
        cells = line.split(delimiter)
    return _stripped(cells)


def _by_white_space(line: str) -> list[str]:
    if "\t" in line:
        return _stripped(line.rstrip(PADDING).split("\t"))
    # Not split() without an argument, as a token may contain a no-break space.
    return [cell for cell in line.strip(PADDING).split(" ") if cell]


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip(PADDING) for cell in cells]


def is_header(cells: Sequence[str], tag_column: int) -> bool:
    """Return whether a line contains the names of the columns.

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


def may_be_header(cells: Sequence[str], others: Sequence[Sequence[str]], tag_column: int) -> bool:
    """Return whether a first line probably contains the names of the columns.

    One of its cells is a usual name of the column of tokens, and what it has as tag has no prefix
    and is no other line's tag.

    Parameters
    ----------
    cells : sequence of str
        The cells of the line.
    others : sequence of sequence of str
        The cells of all other lines that are not blank.
    tag_column : int
        Column of the tags; a negative number counts from the end.

    Examples
    --------
    >>> others = [["No", "O"], ["fever", "Sign"]]
    >>> may_be_header(["word", "category"], others, -1), may_be_header(["word", "Sign"], others, -1)
    (True, False)
    """
    if not others or not -len(cells) <= tag_column < len(cells):
        return False
    tag = cells[tag_column]
    tokens = {cell.lower() for cell in cells} - {tag.lower()}
    tags = {row[tag_column] for row in others if -len(row) <= tag_column < len(row)}
    return not (_HEADER_TOKENS.isdisjoint(tokens) or _TAG.fullmatch(tag) or tag in tags)


def find_token_column(sentences: Sequence[Sentence], tag_column: int) -> int:
    """Return the column of the tokens: the first, or the second if the first numbers the tokens.

    Parameters
    ----------
    sentences : sequence of sequence of sequence of str
        The cells of each line of each sentence.
    tag_column : int
        Column of the tags; a negative number counts from the end.

    Raises
    ------
    ValueError
        If nearly all cells of that column are numbers, or it has one value per sentence.

    Examples
    --------
    >>> find_token_column([[["1", "No", "O"], ["2", "fever", "B-Sign"]]], -1)
    1
    """
    width = min((len(cells) for sentence in sentences for cells in sentence), default=0)
    if width < 2:
        return 0  # the caller refuses the lines that are too short
    candidates = [column for column in range(width) if column != tag_column % width]
    column = candidates[0]
    if len(candidates) > 1 and _numbers_tokens(_column(sentences, column)):
        column = candidates[1]
    content = _other_content(_column(sentences, column), is_only=len(candidates) == 1)
    if content is None:
        return column
    others = [
        other
        for other in candidates
        if other > column and _other_content(_column(sentences, other), is_only=False) is None
    ]
    if others:
        sample = _sample(_column(sentences, others[0]))
        remedy = f"pass token_column={others[0]}, which has {sample}"
    else:
        remedy = f"pass the column as token_column, {column} if these are the tokens"
    msg = f"found {content} in column {column}, expected tokens; {remedy}"
    raise ValueError(msg)


def _column(sentences: Sequence[Sentence], column: int) -> list[list[str]]:
    return [[cells[column] for cells in sentence] for sentence in sentences]


def _numbers_tokens(values: Sequence[Sequence[str]]) -> bool:
    def is_numbered(sentence: Sequence[str], start: int) -> bool:
        return all(
            cell.isascii() and cell.isdigit() and len(cell) < 10 and int(cell) == number
            for number, cell in enumerate(sentence, start)
        )

    # A single line is no evidence, as "1" may be a token.
    return sum(map(len, values)) > 1 and any(
        all(is_numbered(sentence, start) for sentence in values) for start in (0, 1)
    )


def _other_content(values: Sequence[Sequence[str]], *, is_only: bool) -> str | None:
    """Return what a column contains if it cannot be tokens, otherwise None."""
    cells = [cell for sentence in values for cell in sentence]
    nb_numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in cells)
    if len(cells) > 2 and nb_numbers >= 0.9 * len(cells):
        return f"numbers ({_sample(values)})"
    longer = [sentence for sentence in values if len(sentence) > 1]
    is_constant = all(len(set(sentence) - {""}) <= 1 for sentence in longer)
    if not is_only and is_constant and sum(map(len, longer)) > 2:
        return f"the same value throughout each sentence ({_sample(longer)})"
    return None


def _sample(values: Sequence[Sequence[str]]) -> str:
    distinct = dict.fromkeys(cell for sentence in values for cell in sentence if cell)
    return ", ".join(map(repr, list(distinct)[:3]))
