"""What format a corpus has, and reading it by that."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

from medjax.readers._columns import split_rows
from medjax.readers._encoding import likely_encoding
from medjax.readers._files import BYTE_ORDER_MARK
from medjax.readers._foreign import (
    looks_like_json,
    refuse_binary,
    refuse_other_json,
    refuse_other_text,
)
from medjax.readers.brat import has_annotations, read_brat
from medjax.readers.conll import read_conll
from medjax.readers.medkit_json import read_medkit_json
from medjax.text import Document

CONLL_SUFFIXES = (
    ".tsv", ".conll", ".txt", ".iob", ".bio", ".csv", ".tab", ".tags", ".tag", ".ner", ".col",
    ".conllu", ".conll02", ".conll03", ".conll2002", ".conll2003", ".iob1", ".iob2", ".iobes",
    ".bioes", ".bilou", ".bio2", ".bmes", ".bmeso", ".bmewo", ".io", ".train", ".dev", ".devel",
    ".valid", ".validation", ".test", ".testa", ".testb", ".eval",
)  # fmt: skip
"""Endings of files in CoNLL columns, whose documents are single sentences."""

_MEDKIT = (".json", ".jsonl")
_SUPPORTED = (
    "a folder with .ann files (BRAT), CoNLL columns (.conll, .tsv, .txt, .iob, .bio, .csv and the "
    "like) or medkit JSON (.json, .jsonl)"
)
_PREFIXES = ("B-", "I-", "b-", "i-", "B_", "I_")
_TOP = 1 << 16  # bytes that a file is judged by

Format = Literal["brat", "conll", "medkit"]


def format_of(path: str | os.PathLike[str]) -> Format:
    """Return the format of a corpus, told by its name and, where that says nothing, by its content.

    Parameters
    ----------
    path : path
        A folder or a file.

    Returns
    -------
    {"brat", "conll", "medkit"}
        ``"conll"`` means that `read_documents` returns sentences, else it returns documents.

    Raises
    ------
    ValueError
        If the path is none of these; other formats are named where they are known.
    FileNotFoundError
        If there is nothing at the path.
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


def read_documents(path: str | os.PathLike[str], encoding: str | None = None) -> list[Document]:
    """Read a corpus in whatever format it has, as `format_of` tells.

    Parameters
    ----------
    path : path
        A folder with ``.ann`` files, in it or in folders within it, or one such file (BRAT); a file
        in CoNLL columns, such as ``.tsv``, ``.conll`` or ``.csv``; a ``.json`` or ``.jsonl`` file
        (medkit).
    encoding : str, optional
        Encoding of the files. The default is UTF-8, with or without byte order mark.

    Returns
    -------
    list of Document
        What `read_brat`, `read_conll` or `read_medkit_json` returns with its defaults.

    Raises
    ------
    ValueError
        If the path is none of these, or as the reader does.
    FileNotFoundError
        If there is nothing at the path.
    """
    encoding = "utf-8" if encoding is None else encoding
    match format_of(path):
        case "brat":
            return read_brat(path, encoding=encoding).documents
        case "conll":
            return read_conll(path, encoding=encoding)
        case _:
            return read_medkit_json(path, encoding=encoding)


def _top(path: Path) -> str:
    """Return the beginning of a file, without a line that is cut."""
    with path.open("rb") as file:
        content = file.read(_TOP)
    refuse_binary(path, content)
    text = content.decode(likely_encoding(content) or "latin-1", "replace")
    is_cut = len(content) == _TOP
    return (text.rpartition("\n")[0] or text if is_cut else text).lstrip(BYTE_ORDER_MARK)


def _looks_like_columns(text: str) -> bool:
    """Whether nearly all lines have the same number of cells and many end in what is a tag."""
    rows = [row.cells for row in split_rows(text, None, is_csv=False) if row.cells]
    rows = [cells for cells in rows if not cells[0].startswith(("#", "-DOCSTART-"))]
    widths = Counter(map(len, rows))
    width, nb_rows = widths.most_common(1)[0] if rows else (0, 0)
    last = Counter(cells[-1] for cells in rows)
    nb_tags = sum(n for cell, n in last.items() if cell in set("OBI") or cell[:2] in _PREFIXES)
    return width > 1 and nb_rows >= 0.9 * len(rows) and 2 * nb_tags >= len(rows)


def _unsupported(path: Path, found: str) -> ValueError:
    return ValueError(f"{path}: found {found}, expected {_SUPPORTED}")
