"""Detect the format of a corpus, and read it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from medjax.garbage import rare_collections
from medjax.text.document import Document
from medjax.text.readers._columns import split_rows
from medjax.text.readers._encoding import likely_encoding
from medjax.text.readers._files import BYTE_ORDER_MARK
from medjax.text.readers._foreign import (
    kind_of_json,
    kind_of_text,
    looks_like_json,
    refuse_binary,
    refuse_other_json,
    refuse_other_text,
)
from medjax.text.readers._rows import PARQUET, is_dataset_folder
from medjax.text.readers.bioc import read_bioc
from medjax.text.readers.brat import has_annotations, read_brat
from medjax.text.readers.conll import read_conll
from medjax.text.readers.dataset import read_dataset
from medjax.text.readers.docbin import read_docbin
from medjax.text.readers.doccano import read_doccano
from medjax.text.readers.label_studio import read_label_studio
from medjax.text.readers.medkit_json import read_medkit_json
from medjax.text.readers.pubtator import read_pubtator

__all__ = ["CONLL_SUFFIXES", "FORMATS", "Format", "format_of", "read_documents"]

CONLL_SUFFIXES = (
    ".tsv", ".conll", ".txt", ".iob", ".bio", ".csv", ".tab", ".tags", ".tag", ".ner", ".col",
    ".conllu", ".conll02", ".conll03", ".conll2002", ".conll2003", ".iob1", ".iob2", ".iobes",
    ".bioes", ".bilou", ".bio2", ".bmes", ".bmeso", ".bmewo", ".io", ".train", ".dev", ".devel",
    ".valid", ".validation", ".test", ".testa", ".testb", ".eval",
)  # fmt: skip
"""Suffixes of files in CoNLL columns; their documents are single sentences."""

_JSON = (".json", ".jsonl", ".ndjson")
_SUPPORTED = (
    "a folder with .ann files (BRAT), CoNLL columns (.conll, .tsv, .txt, .iob, .bio, .csv and the "
    "like) or medkit JSON (.json, .jsonl), or for read_pubtator, read_bioc, read_doccano, "
    "read_label_studio, read_docbin or read_dataset of medjax.text.readers"
)
_PREFIXES = ("B-", "I-", "b-", "i-", "B_", "I_")
_TOP = 1 << 16  # number of bytes by which the format of a file is detected

Format = Literal[
    "brat", "conll", "medkit", "pubtator", "bioc", "doccano", "label_studio", "docbin", "dataset"
]
FORMATS: tuple[Format, ...] = get_args(Format)
"""Names of the formats that `read_documents` reads."""

_FOLDERS: tuple[Format, ...] = ("brat", "dataset")
_BY_SUFFIX: dict[str, Format] = {
    ".ann": "brat",
    ".pubtator": "pubtator",
    ".spacy": "docbin",
    PARQUET: "dataset",
}
_BY_KIND: dict[str, Format] = {
    "medkit JSON": "medkit",
    "PubTator": "pubtator",
    "BioC XML": "bioc",
    "BioC JSON": "bioc",
    "a Doccano export": "doccano",
    "a Label Studio export": "label_studio",
    "a Hugging Face dataset": "dataset",
    "rows of texts and entities": "dataset",
}


def format_of(path: str | os.PathLike[str]) -> Format:
    r"""Return the format of a corpus, detected by its name or, failing that, by its content.

    Parameters
    ----------
    path : path
        A folder or a file.

    Returns
    -------
    {"brat", "conll", "medkit", "pubtator", "bioc", "doccano", "label_studio", "docbin", "dataset"}
        For ``"conll"``, `read_documents` returns sentences, and so it does for datasets of tokens;
        for the others, whole documents.

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
        if is_dataset_folder(path):
            return "dataset"
        raise _unsupported(path, "a folder without .ann files")
    suffix = path.suffix.lower()
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if suffix == ".rttm":
        raise _unsupported(path, "turns of speakers, which medjax.audio.read_rttm reads")
    text = _top(path)
    kind = kind_of_text(text)
    if kind is not None and kind.name in _BY_KIND:
        return _BY_KIND[kind.name]
    if suffix in _JSON:
        return _format_of_json(path, text)
    in_columns = _looks_like_columns(text)
    if looks_like_json(text) and not in_columns:
        refuse_other_json(path, text, "medkit JSON", _BY_KIND)
        return _format_of_json(path, text)
    if suffix in CONLL_SUFFIXES or in_columns:
        return "conll"
    refuse_other_text(path, text, _SUPPORTED)
    raise _unsupported(path, f"the suffix {path.suffix!r} and no columns")


def _format_of_json(path: Path, top: str) -> Format:
    """Return the format of JSON; medkit's if it is unknown, whose reader says what is wrong."""
    kind = kind_of_json(top)
    if kind is None and path.stat().st_size > _TOP:  # the first record may be longer
        content = path.read_bytes()
        text = content.decode(likely_encoding(content) or "latin-1", "replace")
        kind = kind_of_json(text.lstrip(BYTE_ORDER_MARK))
    return "medkit" if kind is None else _BY_KIND.get(kind.name, "medkit")


@rare_collections()
def read_documents(
    path: str | os.PathLike[str],
    encoding: str | None = None,
    *,
    overlapping: bool = False,
    format: Format | None = None,
) -> list[Document]:
    r"""Read a corpus in the format that `format_of` detects, or in a given one.

    Parameters
    ----------
    path : path
        A folder with ``.ann`` files (also in subfolders) or one such file (BRAT); a file in CoNLL
        columns, such as ``.tsv``, ``.conll`` or ``.csv``; a ``.json`` or ``.jsonl`` file (medkit,
        Doccano, Label Studio, BioC, tokens with tags, texts with entities); PubTator; BioC XML; a
        ``.spacy`` file; a ``.parquet`` file, or a folder of Hugging Face's datasets, with tokens
        and tags or with ``text`` and ``entities``.
    encoding : str, optional
        Encoding of the files. The default is UTF-8, with or without a byte order mark.
    overlapping : bool
        Keep all entities, rather than the longest of those that overlap. CoNLL columns have none
        that overlap.
    format : str, optional
        One of `FORMATS`, where it would be detected wrongly.

    Returns
    -------
    list of Document
        What the reader of the format (`read_brat`, `read_conll`, `read_medkit_json` and so on)
        returns.

    Raises
    ------
    ValueError
        If the corpus has none of these formats, `format` is none of them or that of a file and
        the path is a folder, or the reader raises it.
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
    kind = format_of(path) if format is None else _checked(format, Path(path))
    if kind == "bioc":
        return read_bioc(path, encoding=encoding, overlapping=overlapping)
    if kind == "docbin":
        return read_docbin(path, overlapping=overlapping)
    encoding = "utf-8" if encoding is None else encoding
    if kind == "brat":
        return read_brat(path, encoding=encoding, overlapping=overlapping).documents
    if kind == "conll":
        return read_conll(path, encoding=encoding)
    return _READERS[kind](path, encoding=encoding, overlapping=overlapping)


_READERS: dict[Format, Callable[..., list[Document]]] = {
    "medkit": read_medkit_json,
    "pubtator": read_pubtator,
    "doccano": read_doccano,
    "label_studio": read_label_studio,
    "dataset": read_dataset,
}


def _checked(format: Format, path: Path) -> Format:
    """Return a format that is asked for, unless a corpus at the path cannot have it."""
    if format not in FORMATS:
        expected = ", ".join(map(repr, FORMATS))
        raise ValueError(f"{path}: the format is {format!r}, expected one of {expected}, or none")
    if path.is_dir() and format not in _FOLDERS:
        raise ValueError(f"{path}: found a folder, expected a file for the format {format!r}")
    return format


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
