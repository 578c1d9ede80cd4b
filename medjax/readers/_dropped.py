"""What a reader leaves out, counted and said."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

LOGGER = logging.getLogger("medjax")

OVERLAPPING = "entities overlapping a longer one"
DISCONTINUOUS = "discontinuous entities cut to their longest fragment"
RELATIONS = "relations"
ATTRIBUTES = "attributes"

_SHOWN = 3  # files named in a message


class Dropped(NamedTuple):
    """What of a file was left out.

    Attributes
    ----------
    file : str
        The file.
    kind : str
        What was left out, in words, for instance ``"relations"``.
    count : int
        How many.
    """

    file: str
    kind: str
    count: int  # type: ignore[assignment]  # tuples have a method of that name


class Tally:
    """Counts what is left out while files are read.

    Examples
    --------
    >>> tally = Tally()
    >>> tally.add("a.ann", RELATIONS)
    >>> tally.add("a.ann", RELATIONS, 2)
    >>> tally.total(RELATIONS)
    3
    >>> tally.dropped()
    [Dropped(file='a.ann', kind='relations', count=3)]
    """

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, file: str, kind: str, count: int = 1) -> None:
        """Count `count` more of a kind in a file."""
        if count:
            self._counts[file, kind] += count

    def total(self, kind: str) -> int:
        """Return how many of a kind there are in all files."""
        return sum(count for (_, found), count in self._counts.items() if found == kind)

    def dropped(self) -> list[Dropped]:
        """Return the counts by file and kind, in the order in which they were met."""
        return [Dropped(file, kind, count) for (file, kind), count in self._counts.items()]

    def warn(self, source: object) -> None:
        """Say through the logger ``medjax`` what was left out of `source`, if anything was."""
        kinds = dict.fromkeys(kind for _, kind in self._counts)
        parts = [
            f"{kind}: {self.total(kind)} ({some_of(f for f, k in self._counts if k == kind)})"
            for kind in kinds
        ]
        if parts:
            LOGGER.warning("%s: left out are %s", source, "; ".join(parts))


def some_of(files: Iterable[object]) -> str:
    """Name the first files of several and say how many more there are.

    Examples
    --------
    >>> some_of(["a", "b", "c", "d"])
    'a, b, c and 1 more file'
    """
    names = [str(file) for file in files]
    more = len(names) - _SHOWN
    rest = f" and {more} more file{'s' if more > 1 else ''}" if more > 0 else ""
    return ", ".join(names[:_SHOWN]) + rest
