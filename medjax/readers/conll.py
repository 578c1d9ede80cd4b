"""CoNLL columns: one token a line, a blank line behind each sentence."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from medjax.readers._columns import Row, find_token_column, is_header, split_rows
from medjax.readers._dropped import LOGGER
from medjax.readers._files import Texts
from medjax.readers._foreign import refuse_other_json, refuse_other_text
from medjax.tagging import OUTSIDE, UNNAMED_LABEL, TagError, standard_tags, tags_to_spans
from medjax.text import Document, Entity

_END = "-DOCSTART-"
_LONG = 500  # tokens of a sentence that is more likely a file without blank lines


def read_conll(
    path: str | os.PathLike[str],
    *,
    token_column: int | None = None,
    tag_column: int = -1,
    separator: str | None = None,
    joiner: str = " ",
    encoding: str = "utf-8",
) -> list[Document]:
    """Read the sentences of a file in CoNLL columns.

    Tags in any notation of `medjax.tagging.standard_tags` are read. IOB1, IOB2, BILOU and BIOES
    are all read by the lenient rule of `medjax.tagging`, which finds the entities of each of them.
    Where tags have no prefix, neighbouring tokens of one label are one entity; where they have no
    label, it is `medjax.tagging.UNNAMED_LABEL`; a warning of the logger ``medjax`` says so.

    Left out are a header that names the columns, lines that start with ``-DOCSTART-`` (which end a
    sentence) and comments: lines that start with ``#`` and have another number of columns than the
    file, or no tag.

    Parameters
    ----------
    path : path
        File to read.
    token_column : int or None
        Column of the token; a negative one counts from the end. None for the first column, or the
        second one if the first counts the tokens of each sentence from 0 or 1.
    tag_column : int
        Column of the tag; a negative one counts from the end.
    separator : str or None
        What separates columns; None for tabs in a line that has one and spaces in others, or
        commas or semicolons in a CSV file.
    joiner : str
        What stands between two tokens in the text of a document.
    encoding : str
        Encoding of the file; a byte order mark is tolerated.

    Returns
    -------
    list of Document
        One document a sentence, named by file and line of its first token. Its text is the tokens,
        joined.

    Raises
    ------
    ValueError
        If the file is of another format or encoding, a line has too few columns, an empty token or
        something that is no tag, or the tokens are in no column that can be told.

    References
    ----------
    Tjong Kim Sang and De Meulder (2003), Introduction to the CoNLL-2003 shared task.
    """
    path = Path(path)
    with Texts(encoding) as texts:
        text = texts.read(path)
    refuse_other_text(path, text, "CoNLL columns")
    refuse_other_json(path, text, "CoNLL columns")
    rows = _without_header(
        split_rows(text, separator, is_csv=path.suffix.lower() == ".csv"), tag_column
    )
    sentences, standard = _sentences(path, rows, token_column, tag_column)
    if token_column is None:
        token_column = _token_column(path, sentences, tag_column)
    documents = []
    for sentence in sentences:
        tokens = [_token(path, row, token_column, tag_column) for row in sentence]
        tags = [standard[row.cells[tag_column].strip()] for row in sentence]
        documents.append(_document(tokens, tags, joiner, f"{path.name}:{sentence[0].number}"))
    _say_what_was_assumed(path, sentences, standard)
    return documents


def _without_header(rows: list[Row], tag_column: int) -> list[Row]:
    first = next((place for place, row in enumerate(rows) if row.cells), None)
    if first is not None and is_header(rows[first].cells, tag_column):
        return rows[first + 1 :]
    return rows


def _sentences(
    path: Path, rows: Sequence[Row], token_column: int | None, tag_column: int
) -> tuple[list[list[Row]], dict[str, str]]:
    """Return the lines of each sentence without comments, and what the tags stand for."""
    certain = [row for row in rows if not _is_end(row) and not row.cells[0].startswith("#")]
    for row in certain:
        _check_width(path, row, token_column, tag_column)
    standard = _standard(path, certain, tag_column)
    width = len(certain[0].cells) if certain else None
    sentences: list[list[Row]] = [[]]
    for row in rows:
        if _is_end(row):
            sentences.append([])
        elif not row.cells[0].startswith("#"):
            sentences[-1].append(row)
        elif width in (None, len(row.cells)) and -len(row.cells) <= tag_column < len(row.cells):
            tag = row.cells[tag_column].strip()
            read = standard.get(tag) or _read_alike(tag, standard)
            if read is not None and len(row.cells) > 1:
                standard[tag] = read
                sentences[-1].append(row)
    return [sentence for sentence in sentences if sentence], standard


def _is_end(row: Row) -> bool:
    # The first column may count.
    return not row.cells or any(cell.startswith(_END) for cell in row.cells[:2])


def _check_width(path: Path, row: Row, token_column: int | None, tag_column: int) -> None:
    nb_columns = len(row.cells)
    columns = [tag_column] if token_column is None else [token_column, tag_column]
    # A line of one column has neither two different columns nor, with -1, a tag.
    needed = max(2, *(c + 1 if c >= 0 else -c for c in columns))
    if nb_columns >= needed and len({c % nb_columns for c in columns}) < len(columns):
        needed = nb_columns + 1
    if nb_columns < needed:
        found = f"{nb_columns} columns {row.cells!s:.200}"
        msg = f"{path}:{row.number}: found {found}, expected at least {needed}"
        raise ValueError(msg)


def _standard(path: Path, rows: Sequence[Row], tag_column: int) -> dict[str, str]:
    tags = [row.cells[tag_column].strip() for row in rows]
    try:
        return standard_tags(tags)
    except TagError as error:
        place = tags.index(error.tag)
        msg = (
            f"{path}:{rows[place].number}: found {error.tag!r:.80} as tag, expected O or a prefix "
            f"and a label such as B-Drug, in one notation for all tags, in column {tag_column}"
            f"{_remedy(rows, place, tag_column)}"
        )
        raise ValueError(msg) from error


def _remedy(rows: Sequence[Row], place: int, tag_column: int) -> str:
    if place == 0 and len(rows) > 1 and _are_tags(rows[1:], tag_column):
        return "; if this line names the columns, remove it"
    for column in range(min(len(row.cells) for row in rows)):
        if _are_tags(rows, column):
            return f"; there are tags in column {column}, give tag_column={column}"
    return ""


def _are_tags(rows: Sequence[Row], column: int) -> bool:
    tags = {row.cells[column].strip() for row in rows}
    try:
        return OUTSIDE in standard_tags(tags).values()
    except TagError:
        return False


def _read_alike(tag: str, standard: dict[str, str]) -> str | None:
    """Return what a tag stands for that only lines starting with # have, None for no tag.

    A word of a comment is no tag: it would pass for a label or a bare prefix.
    """
    try:
        read = standard_tags([*standard, tag])[tag]
    except TagError:
        return None
    return None if read == f"I-{tag}" or (len(tag) == 1 and read != OUTSIDE) else read


def _token_column(path: Path, sentences: Sequence[Sequence[Row]], tag_column: int) -> int:
    try:
        return find_token_column([[r.cells for r in rows] for rows in sentences], tag_column)
    except ValueError as error:
        msg = f"{path}:{sentences[0][0].number}: {error}"
        raise ValueError(msg) from error


def _token(path: Path, row: Row, token_column: int, tag_column: int) -> str:
    _check_width(path, row, token_column, tag_column)
    token = row.cells[token_column]
    if not token:
        msg = (
            f"{path}:{row.number}: found an empty token, expected text in column {token_column}; "
            "give the column of the tokens as token_column"
        )
        raise ValueError(msg)
    return token


def _say_what_was_assumed(
    path: Path, sentences: Sequence[Sequence[Row]], standard: dict[str, str]
) -> None:
    if len(sentences) == 1 and len(sentences[0]) > _LONG:
        LOGGER.warning(
            "%s: one sentence of %d tokens; a blank line should end each sentence",
            path,
            len(sentences[0]),
        )
    entities = {tag: read for tag, read in standard.items() if read != OUTSIDE}
    if any(read == f"I-{tag}" for tag, read in entities.items()):
        LOGGER.warning(
            "%s: the tags have no prefix (%s); neighbouring tokens of one label are one entity",
            path,
            ", ".join(list(entities)[:3]),
        )
    if any(len(tag) == 1 and read.endswith(f"-{UNNAMED_LABEL}") for tag, read in entities.items()):
        LOGGER.warning("%s: the tags have no label; it is %r", path, UNNAMED_LABEL)


def _document(tokens: list[str], tags: list[str], joiner: str, name: str) -> Document:
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
