"""Count what a reader leaves out, and warn about it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

LOGGER = logging.getLogger("medjax")

OVERLAPPING = "entities overlapping a longer one"
DISCONTINUOUS = "discontinuous entities cut to their longest fragment"
LOST_RELATIONS = "relations of entities that were left out"
UNCLEAR_RELATIONS = "relations without two entities"
ATTRIBUTES = "attributes"

_SHOWN = 3  # number of files named in a message


class Dropped(NamedTuple):
    """What was left out of a file.

    Attributes
    ----------
    file : str
        The file.
    kind : str
        What was left out, for instance ``"segments"``.
    count : int
        How many of them.

    Examples
    --------
    >>> Dropped("note.ann", "segments", 2).kind
    'segments'
    """

    file: str
    kind: str
    count: int  # type: ignore[assignment]  # tuples have a method of that name


class Tally:
    """Counts what is left out of files.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add("a.ann", ATTRIBUTES)
    >>> tally.add("a.ann", ATTRIBUTES, 2)
    >>> tally.total(ATTRIBUTES)
    3
    >>> tally.dropped()
    [Dropped(file='a.ann', kind='attributes', count=3)]
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, file: str, kind: str, count: int = 1) -> None:
        """Add `count` to the number of a kind in a file."""
        if count:
            self._counts[file, kind] += count

    def total(self, kind: str) -> int:
        """Return the number of a kind in all files."""
        return sum(count for (_, other), count in self._counts.items() if other == kind)

    def dropped(self) -> list[Dropped]:
        """Return the counts by file and kind, in the order of their first occurrence."""
        return [Dropped(file, kind, count) for (file, kind), count in self._counts.items()]

    def warn(self, source: object) -> None:
        """Log a warning of what was left out of `source`, if anything, to the logger ``medjax``."""
        kinds = dict.fromkeys(kind for _, kind in self._counts)
        parts = [
            f"{kind}: {self.total(kind)} ({some_of(f for f, k in self._counts if k == kind)})"
            for kind in kinds
        ]
        if parts:
            LOGGER.warning("%s: left out %s", source, "; ".join(parts))


def some_of(files: Iterable[object]) -> str:
    """Return the names of the first files and the number of the others.

    Examples
    --------
    >>> some_of(["a", "b", "c", "d"])
    'a, b, c and 1 more file'
    """
    names = [str(file) for file in files]
    more = len(names) - _SHOWN
    rest = f" and {more} more file{'s' if more > 1 else ''}" if more > 0 else ""
    return ", ".join(names[:_SHOWN]) + rest
