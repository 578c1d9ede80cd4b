"""Detect the format of a corpus, and read it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

from medjax.text.document import Document
from medjax.text.readers._columns import split_rows
from medjax.text.readers._encoding import likely_encoding
from medjax.text.readers._files import BYTE_ORDER_MARK
from medjax.text.readers._foreign import (
    looks_like_json,
    refuse_binary,
    refuse_other_json,
    refuse_other_text,
)
from medjax.text.readers.brat import has_annotations, read_brat
from medjax.text.readers.conll import read_conll
from medjax.text.readers.medkit_json import read_medkit_json

__all__ = ["CONLL_SUFFIXES", "Format", "format_of", "read_documents"]

CONLL_SUFFIXES = (
    ".tsv", ".conll", ".txt", ".iob", ".bio", ".csv", ".tab", ".tags", ".tag", ".ner", ".col",
    ".conllu", ".conll02", ".conll03", ".conll2002", ".conll2003", ".iob1", ".iob2", ".iobes",
    ".bioes", ".bilou", ".bio2", ".bmes", ".bmeso", ".bmewo", ".io", ".train", ".dev", ".devel",
    ".valid", ".validation", ".test", ".testa", ".testb", ".eval",
)  # fmt: skip
"""Suffixes of files in CoNLL columns; their documents are single sentences."""

_MEDKIT = (".json", ".jsonl")
_SUPPORTED = (
    "a folder with .ann files (BRAT), CoNLL columns (.conll, .tsv, .txt, .iob, .bio, .csv and the "
    "like) or medkit JSON (.json, .jsonl)"
)
_PREFIXES = ("B-", "I-", "b-", "i-", "B_", "I_")
_TOP = 1 << 16  # number of bytes by which the format of a file is detected

Format = Literal["brat", "conll", "medkit"]


def format_of(path: str | os.PathLike[str]) -> Format:
    r"""Return the format of a corpus, detected by its name or, failing that, by its content.

    Parameters
    ----------
    path : path
        A folder or a file.

    Returns
    -------
    {"brat", "conll", "medkit"}
        For ``"conll"``, `read_documents` returns sentences; for the others, whole documents.

    Raises
    ------
    ValueError
        If the corpus has none of these formats. The message names other known formats.
    FileNotFoundError
        If the path does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "corpus.gold")
    ...     _ = file.write_text("No O\nfever B-Sign\n")
    ...     format_of(file)
    'conll'
    """
    path = Path(path)
    if not path.exists():
        msg = f"{path}: no such file or folder"
        raise FileNotFoundError(msg)
    if path.is_dir():
        if has_annotations(path):
            return "brat"
        raise _unsupported(path, "a folder without .ann files")
    suffix = path.suffix.lower()
    if suffix == ".ann":
        return "brat"
    if suffix in _MEDKIT:
        return "medkit"
    text = _top(path)
    in_columns = _looks_like_columns(text)
    if looks_like_json(text) and not in_columns:
        refuse_other_json(path, text, "medkit JSON")
        return "medkit"
    if suffix in CONLL_SUFFIXES or in_columns:
        return "conll"
    refuse_other_text(path, text, _SUPPORTED)
    raise _unsupported(path, f"the suffix {path.suffix!r} and no columns")


def read_documents(
    path: str | os.PathLike[str], encoding: str | None = None, *, overlapping: bool = False
) -> list[Document]:
    r"""Read a corpus in the format that `format_of` detects.

    Parameters
    ----------
    path : path
        A folder with ``.ann`` files (also in subfolders) or one such file (BRAT); a file in CoNLL
        columns, such as ``.tsv``, ``.conll`` or ``.csv``; or a ``.json`` or ``.jsonl`` file
        (medkit).
    encoding : str, optional
        Encoding of the files. The default is UTF-8, with or without a byte order mark.
    overlapping : bool
        Keep all entities, rather than the longest of those that overlap. CoNLL columns have none
        that overlap.

    Returns
    -------
    list of Document
        What `read_brat`, `read_conll` or `read_medkit_json` returns.

    Raises
    ------
    ValueError
        If the corpus has none of these formats, or the reader raises it.
    FileNotFoundError
        If the path does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.tsv")
    ...     _ = file.write_text("No\tO\nfever\tB-Sign\n")
    ...     read_documents(file)[0].text
    'No fever'
    """
    encoding = "utf-8" if encoding is None else encoding
    match format_of(path):
        case "brat":
            return read_brat(path, encoding=encoding, overlapping=overlapping).documents
        case "conll":
            return read_conll(path, encoding=encoding)
        case _:
            return read_medkit_json(path, encoding=encoding, overlapping=overlapping)


def _top(path: Path) -> str:
    """Return the complete lines at the beginning of a file."""
    with path.open("rb") as file:
        content = file.read(_TOP)
    refuse_binary(path, content)
    text = content.decode(likely_encoding(content) or "latin-1", "replace")
    is_cut = len(content) == _TOP
    return (text.rpartition("\n")[0] or text if is_cut else text).lstrip(BYTE_ORDER_MARK)


def _looks_like_columns(text: str) -> bool:
    """Return whether nearly all lines have the same number of cells and many end in a tag."""
    rows = [row.cells for row in split_rows(text, None, is_csv=False) if row.cells]
    rows = [cells for cells in rows if not cells[0].startswith(("#", "-DOCSTART-"))]
    widths = Counter(map(len, rows))
    width, nb_rows = widths.most_common(1)[0] if rows else (0, 0)
    last = Counter(cells[-1] for cells in rows)
    nb_tags = sum(n for cell, n in last.items() if cell in set("OBI") or cell[:2] in _PREFIXES)
    return width > 1 and nb_rows >= 0.9 * len(rows) and 2 * nb_tags >= len(rows)


def _unsupported(path: Path, content: str) -> ValueError:
    return ValueError(f"{path}: found {content}, expected {_SUPPORTED}")
