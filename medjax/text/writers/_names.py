"""Give each document a file name that is fit for all systems and taken by no other.

Where documents are records of one file, tell which names they share.
"""

from __future__ import annotations

import re
import unicodedata

_UNFIT = re.compile(r'[<>:"\\|?*\x00-\x1f\x7f]')
_LENGTH = 200  # bytes of a part of a path; file systems allow 255, with suffixes
_SHOWN = 3


class FileNames:
    """File names for documents, after their names.

    A name stays as it is if it is fit for files, including folders in it. In others, unfit
    characters are replaced, and a name that is taken gets a number.

    Examples
    --------
    >>> names = FileNames()
    >>> [names.name_for(each, 1) for each in ("ward1/a", "notes.jsonl:2", "../a", "ward1/A", "")]
    ['ward1/a', 'notes.jsonl_2', '__/a', 'ward1/A-2', 'document-1']
    >>> names.changes()
    'notes.jsonl:2 as notes.jsonl_2, ../a as __/a, ward1/A as ward1/A-2'
    """

    def __init__(self) -> None:
        self._taken: dict[str, int] = {}  # how often each was asked for
        self._changed: list[str] = []
        self.nb_changed = 0

    def name_for(self, name: str, number: int) -> str:
        """Return the file name, without suffix, of a document with a name and a number."""
        fit = "/".join(map(_fit, name.split("/"))) if name else f"document-{number}"
        chosen = self._untaken(fit)
        if name and chosen != name:
            self.nb_changed += 1
            if len(self._changed) < _SHOWN:
                self._changed.append(f"{name} as {chosen}")
        return chosen

    def _untaken(self, fit: str) -> str:
        chosen = fit
        while (key := _key(chosen)) in self._taken:
            self._taken[_key(fit)] += 1
            chosen = f"{fit}-{self._taken[_key(fit)]}"
        self._taken[key] = 1
        return chosen

    def changes(self) -> str:
        """Return the first changed names, and how many more there are."""
        more = self.nb_changed - len(self._changed)
        return ", ".join(self._changed) + (f" and {more} more" if more else "")


class RepeatedNames:
    """The names that several documents have.

    Examples
    --------
    >>> names = RepeatedNames()
    >>> for name in ("7", "8", "7", "7"):
    ...     names.add(name)
    >>> names.told()
    "2 documents have the name of an earlier one: '7'"
    """

    def __init__(self) -> None:
        self._seen: set[int] = set()  # their hashes: there may be millions of names
        self._first: dict[str, None] = {}
        self.nb_repeated = 0

    def add(self, name: str) -> None:
        """Count the name of a document."""
        if (key := hash(name)) in self._seen:
            self.nb_repeated += 1
            if len(self._first) < _SHOWN:
                self._first[name] = None
        self._seen.add(key)

    def told(self) -> str:
        """Return how many names are repeated, and the first of them; empty if none."""
        if not self.nb_repeated:
            return ""
        shown = ", ".join(map(repr, self._first))
        return f"{self.nb_repeated:,} documents have the name of an earlier one: {shown}"


def _fit(part: str) -> str:
    """Return a part of a path without what some system refuses or hides."""
    part = _UNFIT.sub("_", part[:_LENGTH])
    while len(part.encode()) > _LENGTH:
        part = part[:-1]
    if part.endswith((".", " ")):
        part = part[:-1] + "_"
    return f"_{part[1:]}" if part.startswith(".") else part or "_"


def _key(name: str) -> str:
    # Systems differ in whether a and A, and the two forms of é, are one name.
    return unicodedata.normalize("NFC", name.casefold())
