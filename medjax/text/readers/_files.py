"""Functions shared by the readers: find and open files, join fragments of entities."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from medjax.text.readers._dropped import LOGGER, some_of
from medjax.text.readers._encoding import decode, mistaken_for_8_bit
from medjax.text.readers._foreign import refuse_binary

BYTE_ORDER_MARK = "\ufeff"


class Texts:
    """Opens the files of a corpus in one encoding.

    Use it as a context manager. On exit, also after an error, it logs a warning if another encoding
    was requested for files that are valid UTF-8, as this may have caused the error.

    Parameters
    ----------
    encoding : str
        The encoding. The files may have a byte order mark.
    """

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding
        self._doubtful: dict[Path, str] = {}

    def __enter__(self) -> Texts:
        return self

    def __exit__(self, *_: object) -> None:
        if self._doubtful:
            LOGGER.warning(
                "read as %s, but these files are valid UTF-8: %s; if the first one should read %r, "
                'pass encoding="utf-8"',
                self.encoding,
                some_of(self._doubtful),
                next(iter(self._doubtful.values())),
            )

    def raw(self, path: Path) -> str:
        """Return the text of a file, including its line ends and a byte order mark.

        Raises
        ------
        ValueError
            If the file is not text, or not in the encoding.
        """
        content = path.read_bytes()
        refuse_binary(path, content)
        text = decode(content, self.encoding, path)
        sample = mistaken_for_8_bit(content, self.encoding)
        if sample is not None:
            self._doubtful[path] = sample
        return text

    def read(self, path: Path) -> str:
        """Return the text of a file without a byte order mark; raises the errors of `raw`."""
        return self.raw(path).lstrip(BYTE_ORDER_MARK)


def visible_files(folder: Path) -> list[Path]:
    """Return all files in a folder and its subfolders, sorted.

    Files and folders whose names start with a full stop, such as ``._a.ann`` of macOS, are left
    out. Links to folders are followed; each folder is visited once.

    Raises
    ------
    OSError
        If a folder cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise error

    visible: list[Path] = []
    visited: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(root)
        folders[:] = [] if real in visited else sorted(n for n in folders if not n.startswith("."))
        if real not in visited:
            visible += [Path(root, name) for name in files if not name.startswith(".")]
        visited.add(real)
    return sorted(visible)


def split_lines(text: str) -> list[str]:
    r"""Split a text at line feeds, carriage returns or both.

    Several carriage returns before a line feed count as one. They occur in files whose line ends
    were converted twice; otherwise each line there would be followed by a blank one.

    Examples
    --------
    >>> split_lines("a\r\nb\rc\r\r\nd")
    ['a', 'b', 'c', 'd']
    """
    return re.split(r"\r*\n|\r", text)


def merge_fragments(fragments: Iterable[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Return the fragments of an entity, sorted; join those separated by at most white space.

    Parameters
    ----------
    fragments : iterable of (int, int)
        Start and end of each fragment, in characters.
    text : str
        Text that the offsets refer to.

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
