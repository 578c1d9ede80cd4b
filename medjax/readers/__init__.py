"""Annotated corpora as lists of `medjax.text.Document`."""

import os
from pathlib import Path

from medjax.readers.brat import BratCorpus as BratCorpus
from medjax.readers.brat import read_brat as read_brat
from medjax.readers.conll import read_conll as read_conll
from medjax.readers.medkit_json import read_medkit_json as read_medkit_json
from medjax.text import Document

CONLL_SUFFIXES = (".tsv", ".conll", ".txt", ".iob", ".bio")
"""Endings of files in CoNLL columns, whose documents are single sentences."""

_MEDKIT = (".json", ".jsonl")


def read_documents(path: str | os.PathLike[str]) -> list[Document]:
    """Read a corpus in whatever format its name says.

    Parameters
    ----------
    path : path
        A folder with ``.ann`` files or one such file (BRAT), a ``.tsv``, ``.conll``, ``.txt``,
        ``.iob`` or ``.bio`` file (CoNLL columns), a ``.json`` or ``.jsonl`` file (medkit).

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
    path = Path(path)
    if not path.exists():
        msg = f"{path}: no such file or folder"
        raise FileNotFoundError(msg)
    suffix = path.suffix.lower()
    if suffix == ".ann" or (path.is_dir() and any(path.glob("*.ann"))):
        return read_brat(path).documents
    if path.is_file() and suffix in CONLL_SUFFIXES:
        return read_conll(path)
    if path.is_file() and suffix in _MEDKIT:
        return read_medkit_json(path)
    found = "a folder without .ann files" if path.is_dir() else f"the suffix {path.suffix!r}"
    msg = (
        f"{path}: found {found}, expected a folder with .ann files (BRAT), "
        f"{', '.join(CONLL_SUFFIXES)} (CoNLL columns) or {', '.join(_MEDKIT)} (medkit)"
    )
    raise ValueError(msg)
