"""CoNLL columns: one token a line, a blank line behind each sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from medjax.readers._files import read_text
from medjax.tagging import split_tag, tags_to_spans
from medjax.text import Document, Entity


class _Line(NamedTuple):
    number: int
    columns: list[str]


def read_conll(
    path: str | os.PathLike[str],
    *,
    token_column: int = 0,
    tag_column: int = -1,
    separator: str | None = None,
    joiner: str = " ",
    encoding: str = "utf-8-sig",
) -> list[Document]:
    """Read the sentences of a file in CoNLL columns.

    IOB1, IOB2, BILOU and BIOES tags are all read by the lenient rule of `medjax.tagging`, which
    finds the entities of each of them. Left out are lines that start with ``-DOCSTART-`` (which end
    a sentence) and comments: lines that start with ``#`` and have another number of columns than
    the file, or no tag.

    Parameters
    ----------
    path : path
        File to read.
    token_column, tag_column : int
        Columns of the token and the tag; negative ones count from the end.
    separator : str or None
        What separates columns; None for tabs in a line that has one and spaces in others.
    joiner : str
        What stands between two tokens in the text of a document.
    encoding : str
        Encoding of the file. The default is UTF-8, with or without a byte order mark.

    Returns
    -------
    list of Document
        One document a sentence, named by file and line of its first token. Its text is the tokens,
        joined.

    Raises
    ------
    ValueError
        If a line has too few columns, an empty token or something that is no tag.

    References
    ----------
    Tjong Kim Sang and De Meulder (2003), Introduction to the CoNLL-2003 shared task.
    """
    path = Path(path)
    lines = _columns(read_text(path, encoding), separator)
    width = next(
        (len(line.columns) for line in lines if line.columns and not _is_special(line.columns)),
        None,
    )
    documents: list[Document] = []
    tokens: list[str] = []
    tags: list[str] = []
    first_line = 0
    for line in [*lines, _Line(len(lines) + 1, [])]:
        columns = line.columns
        if columns and columns[0].startswith("#") and _is_comment(columns, width, tag_column):
            continue
        if columns and not columns[0].startswith("-DOCSTART-"):
            token, tag = _token_and_tag(path, line, token_column, tag_column)
            first_line = first_line if tokens else line.number
            tokens.append(token)
            tags.append(tag)
        elif tokens:
            documents.append(_sentence(tokens, tags, joiner, f"{path.name}:{first_line}"))
            tokens, tags = [], []
    return documents


def _columns(text: str, separator: str | None) -> list[_Line]:
    return [
        _Line(number, _split(line.rstrip(), separator) if line.strip() else [])
        for number, line in enumerate(text.split("\n"), start=1)
    ]


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None and "\t" not in line:
        # Not split(): a token may hold a no-break space.
        return [column for column in line.split(" ") if column]
    return line.split(separator or "\t")


def _is_special(columns: list[str]) -> bool:
    return columns[0].startswith(("#", "-DOCSTART-"))


def _is_comment(columns: list[str], width: int | None, tag_column: int) -> bool:
    if width is not None and len(columns) != width:
        return True
    try:
        split_tag(columns[tag_column])
    except (IndexError, ValueError):
        return True
    return False


def _token_and_tag(path: Path, line: _Line, token_column: int, tag_column: int) -> tuple[str, str]:
    where, nb_columns = f"{path}:{line.number}", len(line.columns)
    # A line of one column has neither two different columns nor, with -1, a tag.
    needed = max(2, *(c + 1 if c >= 0 else -c for c in (token_column, tag_column)))
    if nb_columns < needed:
        msg = f"{where}: found {nb_columns} columns {line.columns}, expected at least {needed}"
        raise ValueError(msg)
    token, tag = line.columns[token_column].strip(), line.columns[tag_column].strip()
    if not token:
        msg = f"{where}: found an empty token, expected text in column {token_column}"
        raise ValueError(msg)
    try:
        split_tag(tag)
    except ValueError as error:
        msg = (
            f"{where}: found {tag!r} as tag, expected O or a prefix and a label such as B-Drug "
            f"in column {tag_column}"
        )
        raise ValueError(msg) from error
    return token, tag


def _sentence(tokens: list[str], tags: list[str], joiner: str, name: str) -> Document:
    starts = list(_starts(tokens, joiner))
    entities = tuple(
        Entity(label, starts[first], starts[stop - 1] + len(tokens[stop - 1]))
        for label, first, stop in tags_to_spans(tags, "conlleval")
    )
    return Document(joiner.join(tokens), entities, name)


def _starts(tokens: list[str], joiner: str) -> Iterator[int]:
    start = 0
    for token in tokens:
        yield start
        start += len(token) + len(joiner)
