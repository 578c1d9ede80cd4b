"""Read CoNLL columns: one token per line, a blank line after each sentence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medjax.text.document import Document, Entity
from medjax.text.readers._columns import (
    Row,
    find_token_column,
    is_header,
    may_be_header,
    split_rows,
)
from medjax.text.readers._dropped import LOGGER
from medjax.text.readers._files import Texts
from medjax.text.readers._foreign import refuse_other_json, refuse_other_text
from medjax.text.readers._tags import warn_of_tags
from medjax.text.tagging import OUTSIDE, TagError, standard_tags, tags_to_spans

__all__ = ["read_conll"]

_END = "-DOCSTART-"
_LONG = 500  # a longer sentence is probably a file without blank lines


def read_conll(
    path: str | os.PathLike[str],
    *,
    token_column: int | None = None,
    tag_column: int = -1,
    separator: str | None = None,
    joiner: str = " ",
    encoding: str = "utf-8",
) -> list[Document]:
    r"""Read the sentences of a file in CoNLL columns.

    Tags may have any notation of `medjax.text.tagging.standard_tags`. They are read by the lenient
    rule of `medjax.text.tagging`, which finds the entities of IOB1, IOB2, BILOU and BIOES alike. If
    tags have no prefix, adjacent tokens of one label are one entity; if they have no label, it is
    ``Entity``; in both cases, and if tags can be read in two ways, a warning to the logger
    ``medjax`` says so.

    A header with the names of the columns, lines that start with ``-DOCSTART-`` (which end a
    sentence) and comments are left out. Comments are lines that start with ``#`` and have no tag,
    or not as many columns as the other lines; a warning tells of those that seem to be tokens
    with a column too many. A first line with a usual name for the tokens, such
    as ``word``, and a tag without prefix that no other line has is a header, and a warning says so.

    Parameters
    ----------
    path : path
        File to read.
    token_column : int or None
        Column of the token; a negative number counts from the end. By default it is the first
        column, or the second if the first numbers the tokens of each sentence from 0 or 1.
    tag_column : int
        Column of the tag; a negative number counts from the end.
    separator : str or None
        Separator of the columns. By default, tabs in lines that have any and spaces in others, or
        commas or semicolons in a CSV file.
    joiner : str
        Inserted between the tokens to form the text of a document.
    encoding : str
        Encoding of the file, which may have a byte order mark.

    Returns
    -------
    list of Document
        One document per sentence, named after the file and the line of its first token. Its text
        is the tokens, joined.

    Raises
    ------
    ValueError
        If the file has another format or encoding, a line has too few columns or more than most
        lines, an empty token or an invalid tag, or the column of the tokens cannot be determined.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.tsv")
    ...     _ = file.write_text("No\tO\nfever\tB-Sign\n")
    ...     (sentence,) = read_conll(file)
    >>> sentence.text, sentence.entities
    ('No fever', (Entity(label='Sign', start=3, end=8, score=None),))

    References
    ----------
    Tjong Kim Sang and De Meulder (2003), Introduction to the CoNLL-2003 shared task.
    """
    path = Path(path)
    with Texts(encoding) as texts:
        text = texts.read(path)
    refuse_other_text(path, text, "CoNLL columns")
    refuse_other_json(path, text, "CoNLL columns")
    rows = split_rows(text, separator, is_csv=path.suffix.lower() == ".csv")
    rows = _without_header(path, rows, tag_column)
    sentences, standard = _sentences(path, rows, token_column, tag_column)
    if token_column is None:
        token_column = _token_column(path, sentences, tag_column)
    documents = []
    for sentence in sentences:
        tokens = [_token(path, row, token_column, tag_column) for row in sentence]
        tags = [standard[row.cells[tag_column].strip()] for row in sentence]
        documents.append(sentence_of(tokens, tags, joiner, f"{path.name}:{sentence[0].number}"))
    _warn_of_length(path, sentences)
    warn_of_tags(path, standard)
    return documents


def _without_header(path: Path, rows: list[Row], tag_column: int) -> list[Row]:
    first = next((position for position, row in enumerate(rows) if row.cells), None)
    if first is None:
        return rows
    cells, others = rows[first].cells, rows[first + 1 :]
    if is_header(cells, tag_column):
        return others
    if may_be_header(cells, [row.cells for row in others if row.cells], tag_column):
        LOGGER.warning(
            "%s:%d: left out %s, taken for the names of the columns, as %r is nowhere else a tag",
            path,
            rows[first].number,
            cells,
            cells[tag_column],
        )
        return others
    return rows


def _sentences(
    path: Path, rows: Sequence[Row], token_column: int | None, tag_column: int
) -> tuple[list[list[Row]], dict[str, str]]:
    """Return the lines of each sentence without comments, and the standard form of each tag."""
    certain = [row for row in rows if not _is_end(row) and not row.cells[0].startswith("#")]
    width = _usual_width(certain)
    for row in certain:
        _check_width(path, row, token_column, tag_column)
    for row in certain:
        _refuse_more_cells(path, row, width, token_column, tag_column)
    standard = _standard(path, certain, tag_column)
    _warn_of_comments(path, rows, width, tag_column, standard)
    sentences: list[list[Row]] = [[]]
    for row in rows:
        if _is_end(row):
            sentences.append([])
        elif not row.cells[0].startswith("#"):
            sentences[-1].append(row)
        elif width in (0, len(row.cells)) and -len(row.cells) <= tag_column < len(row.cells):
            tag = row.cells[tag_column].strip()
            standard_tag = standard.get(tag) or _standard_tag(tag, standard)
            if standard_tag is not None and len(row.cells) > 1:
                standard[tag] = standard_tag
                sentences[-1].append(row)
    return [sentence for sentence in sentences if sentence], standard


def _warn_of_comments(
    path: Path, rows: Sequence[Row], width: int, tag_column: int, standard: Mapping[str, str]
) -> None:
    """Warn of lines that are left out as comments and are tokens with a column too many.

    They begin with a word such as ``#1``, which comments such as ``# text = ...`` do not, and end
    in a tag of the file, be it O or one with a prefix.
    """
    tags = {tag for tag, name in standard.items() if name != f"I-{tag}"}
    at = (tag_column,) if tag_column < 0 else (tag_column, tag_column + 1)
    found = [
        row
        for row in rows
        if len(row.cells) == width + 1
        and row.cells[0].startswith("#")
        and row.cells[0] != "#"
        and not any("=" in cell for cell in row.cells[:2])
        and any(row.cells[column] in tags for column in at if column < width + 1)
    ]
    if found:
        LOGGER.warning(
            "%s: left out %d lines that begin with '#' as comments, but they end in a tag and have "
            "%d columns, one more than the others: line %d is %s; remove the column, or the space "
            "in the token",
            path,
            len(found),
            width + 1,
            found[0].number,
            found[0].cells,
        )


def _is_end(row: Row) -> bool:
    # The first column may number the tokens.
    return not row.cells or any(cell.startswith(_END) for cell in row.cells[:2])


def _check_width(path: Path, row: Row, token_column: int | None, tag_column: int) -> None:
    nb_columns = len(row.cells)
    columns = [tag_column] if token_column is None else [token_column, tag_column]
    # A line of one column has no tag, not even with tag_column=-1.
    needed = max(2, *(c + 1 if c >= 0 else -c for c in columns))
    if nb_columns >= needed and len({c % nb_columns for c in columns}) < len(columns):
        needed = nb_columns + 1
    if nb_columns < needed:
        msg = (
            f"{path}:{row.number}: found {nb_columns} columns {row.cells!s:.200}, expected at "
            f"least {needed}"
        )
        raise ValueError(msg)


def _usual_width(rows: Sequence[Row]) -> int:
    """Return the most common number of cells, of several the smallest; 0 if there are no rows."""
    widths = Counter(len(row.cells) for row in rows)
    return max(widths, key=lambda width: (widths[width], -width), default=0)


def _refuse_more_cells(
    path: Path, row: Row, width: int, token_column: int | None, tag_column: int
) -> None:
    """Raise ValueError if a row has more cells than usual, so that some of them would be lost."""
    # Empty cells at the end, after a separator too many, move no column that counts from the start.
    is_counted_from_end = min(tag_column, token_column or 0) < 0
    if len(row.cells) > width and (is_counted_from_end or any(row.cells[width:])):
        msg = (
            f"{path}:{row.number}: found {len(row.cells)} columns {row.cells!s:.200}, expected at "
            f"most {width}, as in most lines; if a token contains the separator, pass another "
            "separator, or in a CSV file put the token in quotation marks"
        )
        raise ValueError(msg)


def _standard(path: Path, rows: Sequence[Row], tag_column: int) -> dict[str, str]:
    tags = [row.cells[tag_column].strip() for row in rows]
    try:
        return standard_tags(tags)
    except TagError as error:
        position = tags.index(error.tag)
        msg = (
            f"{path}:{rows[position].number}: found {error.tag!r:.80} as tag, expected O, or a "
            "prefix and a label such as B-Drug, in the same notation for all tags, in column "
            f"{tag_column}{_remedy(rows, position, tag_column)}"
        )
        raise ValueError(msg) from error


def _remedy(rows: Sequence[Row], position: int, tag_column: int) -> str:
    if position == 0 and len(rows) > 1 and _are_tags(rows[1:], tag_column):
        return "; if this line names the columns, remove it"
    for column in range(min(len(row.cells) for row in rows)):
        if _are_tags(rows, column):
            return f"; there are tags in column {column}, pass tag_column={column}"
    return ""


def _are_tags(rows: Sequence[Row], column: int) -> bool:
    tags = {row.cells[column].strip() for row in rows}
    try:
        return OUTSIDE in standard_tags(tags).values()
    except TagError:
        return False


def _standard_tag(tag: str, standard: dict[str, str]) -> str | None:
    """Return the standard form of a tag that only occurs in lines starting with #, or None.

    A label alone or a prefix alone does not count as a tag, as it may be a word of a comment.
    """
    try:
        together = standard_tags([*standard, tag])
    except TagError:
        return None
    standard_tag = together.pop(tag)
    if together != standard:  # the notation would be that of a comment
        return None
    is_prefix = len(tag) == 1 and standard_tag != OUTSIDE
    return None if standard_tag == f"I-{tag}" or is_prefix else standard_tag


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
            "pass the column of the tokens as token_column"
        )
        raise ValueError(msg)
    return token


def _warn_of_length(path: Path, sentences: Sequence[Sequence[Row]]) -> None:
    if len(sentences) == 1 and len(sentences[0]) > _LONG:
        LOGGER.warning(
            "%s: one sentence of %d tokens; a blank line should end each sentence",
            path,
            len(sentences[0]),
        )


def sentence_of(tokens: list[str], tags: list[str], joiner: str, name: str) -> Document:
    """Return the document of a sentence, its tokens joined, its tags in standard notation."""
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
