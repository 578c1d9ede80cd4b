"""What the readers share: opening a file, building a document."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from medjax.text import Document, Entity, without_overlaps

LOGGER = logging.getLogger("medjax")


def read_text(path: Path, encoding: str, newline: str | None = None) -> str:
    """Return the text of a file.

    Parameters
    ----------
    path : Path
        File to read.
    encoding : str
        Its encoding.
    newline : str or None
        As in `open`: None turns every line end into a line feed, "" leaves them.

    Raises
    ------
    ValueError
        If the bytes are not of that encoding.
    """
    try:
        with path.open(encoding=encoding, newline=newline) as file:
            return file.read()
    except UnicodeDecodeError as error:
        msg = f"{path}: byte {error.start} found; expected text in {encoding}, give the encoding"
        raise ValueError(msg) from error


def merge_fragments(fragments: Iterable[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Sort fragments of an entity and join those with nothing or white space between them.

    Parameters
    ----------
    fragments : iterable of (int, int)
        Start and end in characters.
    text : str
        Text that they count in.

    Examples
    --------
    >>> merge_fragments([(5, 8), (0, 4), (13, 18)], "left and the wrist")
    [(0, 8), (13, 18)]
    """
    merged: list[tuple[int, int]] = []
    for start, end in sorted(fragments):
        if merged and not text[merged[-1][1] : start].strip():
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def build_document(text: str, entities: Iterable[Entity], name: str) -> tuple[Document, int]:
    """Return a document without overlapping entities, and how many were dropped for that.

    Parameters
    ----------
    text : str
        Text of the document.
    entities : iterable of Entity
        Annotations, in any order.
    name : str
        Name of the document.
    """
    kept, nb_dropped = without_overlaps(entities)
    return Document(text, kept, name), nb_dropped
