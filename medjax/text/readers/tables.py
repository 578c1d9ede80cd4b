"""Read labelled texts from tables: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from medjax.text.document import LabelledText, label_form
from medjax.text.readers._files import Texts
from medjax.text.readers._rows import PARQUET, Table, named, open_table, read_parquet

__all__ = ["TABLE_FORMATS", "TABLE_SUFFIXES", "TableFormat", "read_texts"]

TableFormat = Literal["csv", "tsv", "jsonl", "parquet"]
TABLE_FORMATS: tuple[TableFormat, ...] = get_args(TableFormat)
"""Names of the formats of files that `read_texts` reads."""

_MISSING = ("NA", "<NA>", "N/A", "NaN", "nan", "NULL", "null", "None")
"""What R, pandas and others write for a value that is missing."""

_LOGGER = logging.getLogger("medjax")

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
_OTHERS = (";", "\t", ",", "|")  # what may separate columns
_JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (*_DELIMITERS, *_JSON_LINES, PARQUET)
"""Endings of the files that `read_texts` reads."""


def read_texts(
    path: Any,
    *,
    split: str | None = None,
    text: str = "text",
    label: str = "label",
    group: str | None = None,
    separator: str | None = None,
    encoding: str = "utf-8",
    format: TableFormat | None = None,
) -> list[LabelledText]:
    r"""Read labelled texts from a table with named columns.

    Parameters
    ----------
    path : path, datasets.Dataset or datasets.DatasetDict
        A file ending in ``.csv`` or ``.tsv``, whose first row names the columns; ``.jsonl``, with
        an object on each line; or ``.parquet``, which needs pyarrow. Or a dataset of Hugging Face,
        or the folder that its ``save_to_disk`` has written, which needs datasets.
    split : str, optional
        Name of the split of a dataset to read, where there are several.
    text : str
        Name of the column with the texts.
    label : str
        Name of the column with the labels. A label may be a string, a whole number or, in JSON and
        Parquet, a list of them; an empty one means that the text has none, and a warning says if
        one is NA or another mark of a missing value. White space around one does not belong to it,
        any within is one blank, and accents are those of Unicode's form NFC, so that labels that
        look the same are the same. Where both 1 and 1.0 occur in a table of text, they are the
        label 1; in JSON and Parquet 1.0 is 1, and true and false are True and False, as pandas
        writes them to CSV. If the data have names for the numbers, as those of Hugging Face do, the
        names are the labels.
    group : str, optional
        Name of a column with what texts share that depend on each other, such as a patient. White
        space around it does not count, nor what kind is within, nor how accents are encoded, and
        7.0 is 7, as a number or as text.
    separator : str, optional
        What separates the labels of a text in one cell.
    encoding : str
        Encoding of the file, which may have a byte order mark.
    format : str, optional
        One of `TABLE_FORMATS`, for a file that ends otherwise.

    Returns
    -------
    list of LabelledText
        The texts, named after their file and row.

    Raises
    ------
    ValueError
        If the file ends otherwise and no `format` is given, it is empty or damaged or lacks a
        column, or a cell is of another kind, in the column `group` empty or a mark of a missing
        value, such as NA, or in TSV has tabs and line ends.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.csv")
    ...     _ = file.write_text("text,label\nNo fever.,other\n")
    ...     read_texts(file)[0][:2]
    ('No fever.', ('other',))
    """
    _check_columns({"text": text, "label": label, "group": "" if group is None else group})
    table = _table(path, split, encoding, format)
    names = table.class_names(label)
    texts = []
    for where, row in table.rows:
        cells = {}
        for name in filter(None, (text, label, group)):
            if name not in row:
                msg = f"{where} has the columns {[*row]}; expected {name!r} among them"
                raise ValueError(msg)
            cells[name] = row[name]
        if not isinstance(cells[text], str):
            msg = f"{where}: the column {text!r} is {cells[text]!r:.60}; expected a text"
            raise ValueError(msg)
        cell = _with_names(cells[label], names, where, label)
        labels = _labels(cell, separator, where, label)
        of_group = "" if group is None else _group(cells[group], where, group)
        texts.append(LabelledText(cells[text], labels, where, of_group))
    if not texts:
        raise ValueError(f"{table.name} has no rows; expected labelled texts")
    _warn_of_missing(texts, table.name, label)
    return _with_whole_numbers(texts)


def _warn_of_missing(texts: list[LabelledText], name: str, column: str) -> None:
    """Warn of labels that look like values that are missing."""
    counts = {mark: sum(mark in text.labels for text in texts) for mark in _MISSING}
    if found := {mark: count for mark, count in counts.items() if count}:
        shown = ", ".join(f"{mark!r} ({count} rows)" for mark, count in found.items())
        _LOGGER.warning(
            f"{name}: the column {column!r} has {shown}, which are learned as classes; if they "
            "mark missing values, remove the rows, or empty the cells of texts without a label"
        )


def _with_whole_numbers(texts: list[LabelledText]) -> list[LabelledText]:
    """Return texts with 1 for the label 1.0 where both occur: pandas writes both for a class."""
    numbers = {name for text in texts for name in text.labels if _NUMBER.fullmatch(name)}
    whole = {name: found[1] for name in numbers if (found := _WHOLE.fullmatch(name))}
    if numbers.isdisjoint(whole.values()):
        return texts
    return [
        text._replace(labels=tuple(dict.fromkeys(whole.get(name, name) for name in text.labels)))
        for text in texts
    ]


def _check_columns(columns: Mapping[str, object]) -> None:
    for argument, column in columns.items():
        if not isinstance(column, str):
            msg = (
                f"{argument} is {column!r:.60}; expected the name of one column. Labels in several "
                'columns can be joined in one, such as "a;b", for separator=";"'
            )
            raise ValueError(msg)


def _table(path: Any, split: str | None, encoding: str, format: TableFormat | None) -> Table:
    is_file = isinstance(path, str | os.PathLike) and not Path(path).is_dir()
    if format is not None and format not in TABLE_FORMATS:
        expected = ", ".join(map(repr, TABLE_FORMATS))
        raise ValueError(f"the format is {format!r}, expected one of {expected}, or none")
    if format is not None and not is_file:
        found = f"{path}, a folder" if isinstance(path, str | os.PathLike) else type(path).__name__
        raise ValueError(f"found {found}; expected a file for the format {format!r}")
    if not is_file:
        return open_table(path, split, encoding)
    path = Path(path)
    suffix = path.suffix.lower() if format is None else f".{format}"
    if suffix not in TABLE_SUFFIXES:
        msg = f"{path} ends in {path.suffix!r}; expected {', '.join(TABLE_SUFFIXES)}"
        raise ValueError(msg)
    if split is not None:
        return open_table(path, split, encoding)
    if suffix == PARQUET:
        return read_parquet(path)
    return Table(str(path), _text_rows(path, suffix, encoding), {})


def _with_names(cell: Any, names: list[str] | None, where: str, column: str) -> Any:
    """Return a cell with the names of its classes for their numbers, if they have names."""
    if names is None:
        return cell
    if isinstance(cell, list):
        return [named(part, names, where, column) for part in cell]
    return None if cell is None else named(cell, names, where, column)


def _labels(cell: Any, separator: str | None, where: str, column: str) -> tuple[str, ...]:
    """Return the labels in a cell, each once, in order and in the form of `label_form`."""
    if cell is None:
        return ()
    parts = cell if isinstance(cell, list) else [cell]
    if separator is not None and isinstance(cell, str):
        parts = cell.split(separator)
    names = (label_form(_name_of(part, where, column)) for part in parts)
    return tuple(dict.fromkeys(filter(None, names)))


def _name_of(part: Any, where: str, column: str) -> str:
    """Return a label as a string."""
    if isinstance(part, float) and part.is_integer():
        part = int(part)  # pandas turns a column of numbers with a gap into floats
    if not isinstance(part, str | int):
        msg = (
            f"{where}: the column {column!r} has {part!r:.60}; expected names of classes, as "
            "strings, whole numbers, true or false: write it as a string, such as "
            f"{str(part)!r:.60}, or as null if the text has no label"
        )
        raise ValueError(msg)
    return str(part)


def _group(cell: Any, where: str, column: str) -> str:
    """Return the group in a cell; what marks a missing value would join texts of any patients."""
    group = "" if cell is None or cell != cell else label_form(str(cell))
    if isinstance(cell, float) and cell.is_integer():
        group = str(int(cell))  # pandas turns a column of numbers with a gap into floats
    elif whole := _WHOLE.fullmatch(group):
        group = whole[1]  # and writes them so to a file
    if not group or group in _MISSING:
        msg = (
            f"{where}: the column {column!r} is {cell!r}; expected in each row what the texts of a "
            "group share, such as the id of a patient: fill it in, or leave out group"
        )
        raise ValueError(msg)
    return group


def _text_rows(path: Path, suffix: str, encoding: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield name and content of each row of a text file."""
    with Texts(encoding) as texts:
        content = texts.read(path)
    if suffix in _DELIMITERS:
        yield from _delimited(path, content, _DELIMITERS[suffix])
        return
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where} is not JSON ({error}); expected an object") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where} is {row!r:.60}; expected a JSON object with named columns")
        yield where, row


def _delimited(path: Path, content: str, delimiter: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # by default a cell has at most 131,072
    reader = csv.DictReader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    names = list(reader.fieldnames or ())  # reads the first row
    if twice := sorted({name for name in names if name and names.count(name) > 1}):
        raise ValueError(
            f"{path} has several columns named {', '.join(map(repr, twice))}; expected one of each "
            "name: rename or remove the others"
        )
    _refuse_other_delimiter(path, names, delimiter)
    while True:
        where = f"{path}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            msg = f'{where}: {error}; expected cells quoted by RFC 4180: "..." with "" inside'
            raise ValueError(msg) from error
        if row is None:
            return
        if delimiter == "\t":
            _refuse_joined_rows(row, where, reader.line_num)
        if None in row or None in row.values():  # too many cells, or too few
            msg = f"{where} is {row!r:.200}; expected one cell for each of {names}"
            raise ValueError(msg)
        yield where, row


def _refuse_other_delimiter(path: Path, names: list[str], delimiter: str) -> None:
    """Raise ValueError if the only name of a column looks like several."""
    found = next((each for each in _OTHERS if len(names) == 1 and each in names[0]), delimiter)
    if found == delimiter:
        return
    given = next((form for form, each in _DELIMITERS.items() if each == found), None)
    how = (
        "save it with commas, as .csv, or with tabs, as .tsv"
        if given is None
        else f'give format="{given[1:]}", or --input-format {given[1:]}'
    )
    msg = (
        f"{path} has the one column {names[0]!r:.200}, but seems to separate columns by {found!r}; "
        f"expected {delimiter!r}: {how} (separator is for several labels in one cell)"
    )
    raise ValueError(msg)


def _refuse_joined_rows(row: Mapping[Any, Any], where: str, last: int) -> None:
    r"""Raise ValueError if a cell of a TSV file has line ends and tabs.

    In a file without quoting, a quotation mark at the start of a cell would join rows to one text.
    """
    for cell in row.values():
        if isinstance(cell, str) and "\t" in cell and ("\n" in cell or "\r" in cell):
            msg = (
                f"{where} to {last}: found tabs and line ends in the cell {cell!r:.80}, expected "
                'rows on a line each; if the file does not quote, write "" for each " and put the '
                "cells that have any in quotation marks; if it does, write spaces for the tabs"
            )
            raise ValueError(msg)
