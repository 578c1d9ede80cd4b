"""What the readers share: finding and opening files, building a document."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from medjax.readers._dropped import LOGGER, some_of
from medjax.readers._encoding import decode, mistaken_for_8_bit
from medjax.readers._foreign import refuse_binary
from medjax.text import Document, Entity, without_overlaps

BYTE_ORDER_MARK = "\ufeff"


class Texts:
    """Opens the files of a corpus, all in one encoding.

    Parameters
    ----------
    encoding : str
        The encoding. A byte order mark is tolerated.

    As a context it says at its end which files are UTF-8 though another encoding was asked for:
    also after an error, which may come of that.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._doubtful: dict[Path, str] = {}

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._doubtful:
            LOGGER.warning(
                "read as %s, but these files are valid UTF-8: %s; if %r is what the first one says "
                'give encoding="utf-8"',
                self.encoding,
                some_of(self._doubtful),
                next(iter(self._doubtful.values())),
            )

    def raw(self, path: Path) -> str:
        """Return the text of a file with its line ends and its byte order mark.

        Raises
        ------
        ValueError
            If the file is no text, or not of the encoding.
        """
        content = path.read_bytes()
        refuse_binary(path, content)
        text = decode(content, self.encoding, path)
        sample = mistaken_for_8_bit(content, self.encoding)
        if sample is not None:
            self._doubtful[path] = sample
        return text

    def read(self, path: Path) -> str:
        """Return the text of a file without byte order mark; raises as `raw`."""
        return self.raw(path).lstrip(BYTE_ORDER_MARK)


def visible_files(folder: Path) -> list[Path]:
    """Return all files in a folder and the folders in it, sorted.

    Left out is what has a name with a full stop in front, such as macOS's ``._a.ann``. Links to
    folders are followed, each folder once.

    Raises
    ------
    OSError
        If a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    found: list[Path] = []
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in seen else sorted(n for n in folders if not n.startswith("."))
        if real not in seen:
            found += [Path(root, name) for name in files if not name.startswith(".")]
        seen.add(real)
    return sorted(found)


def split_lines(text: str) -> list[str]:
    r"""Split a text at line feeds, carriage returns or both.

    Several carriage returns before a line feed count as one: they come of files that were
    converted twice, where each line would else be followed by a blank one.

    Examples
    --------
    >>> split_lines("a\r\nb\rc\r\r\nd")
    ['a', 'b', 'c', 'd']
    """
    return re.split(r"\r*\n|\r", text)


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
