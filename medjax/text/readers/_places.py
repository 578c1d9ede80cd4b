"""Find annotations in their text by offsets that may count characters, code units or bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medjax.text.readers._brat_offsets import TextBound, locate
from medjax.text.readers._dropped import DISCONTINUOUS, LOGGER, Tally, some_of
from medjax.text.readers._files import merge_fragments


class Mark(NamedTuple):
    """An annotation of a text.

    Attributes
    ----------
    label : str
        Its label.
    fragments : list of (int, int)
        Start and end of each fragment, as the file has them.
    text : str or None
        The annotated text that the file has, if it has it.
    where : str
        Where the annotation is in the file.
    """

    label: str
    fragments: list[tuple[int, int]]
    text: str | None
    where: str


class Places:
    """Finds annotations in texts, and warns if their offsets count something unusual.

    Parameters
    ----------
    kind : str
        The format, for the messages.
    tally : Tally
        Counts the fragments left out.
    """

    def __init__(self, kind: str, tally: Tally) -> None:
        self._kind = kind
        self._tally = tally
        self._unusual: dict[str, dict[str, None]] = {}

    def find(self, marks: Sequence[Mark], text: str, file: str) -> list[tuple[int, int]]:
        """Return start and end of each annotation, in characters.

        Discontinuous annotations are reduced to their longest fragment, which is counted.

        Parameters
        ----------
        marks : sequence of Mark
            All annotations of a text.
        text : str
            The text.
        file : str
            The file, for the messages.

        Raises
        ------
        ValueError
            If no convention of counting gives the annotated text at all offsets, or there is an
            annotation without its text and what the offsets count matters.
        """
        for mark in marks:
            if min(start for start, _ in mark.fragments) < 0:
                msg = (
                    f"{mark.where}: found {mark.fragments} as start and end, expected no number "
                    "below 0, the start of the text; correct the offsets"
                )
                raise ValueError(msg)
        checked = [mark for mark in marks if mark.text is not None]
        lines = [TextBound("", m.label, m.fragments, m.text or "", m.where) for m in checked]
        found, convention = locate(lines, text)
        if convention.is_unusual:
            self._unusual.setdefault(str(convention), {})[file] = None
        positions = iter(found)
        fragments = [
            next(positions) if mark.text is not None else _unchecked(mark, text) for mark in marks
        ]
        places = []
        for pieces in fragments:
            merged = merge_fragments(pieces, text)
            self._tally.add(file, DISCONTINUOUS, len(merged) > 1)
            places.append(max(merged, key=lambda piece: piece[1] - piece[0]))
        return places

    def warn(self) -> None:
        """Log a warning for each unusual convention."""
        for unit, files in self._unusual.items():
            LOGGER.warning(
                "%s: the offsets count %s in some files: %d (%s)",
                self._kind,
                unit,
                len(files),
                some_of(files),
            )


def _unchecked(mark: Mark, text: str) -> list[tuple[int, int]]:
    if not text.isascii():
        msg = (
            f"{mark.where}: found no text of the annotation, expected it, as the text around it is "
            "not ASCII and offsets may count bytes or characters; export with the annotated text"
        )
        raise ValueError(msg)
    for start, end in mark.fragments:
        check_range(start, end, len(text), mark.where)
    return mark.fragments


def check_range(start: int, end: int, length: int, where: str) -> None:
    """Raise ValueError if offsets are not within a text or are in the wrong order."""
    if not 0 <= start < end <= length:
        msg = (
            f"{where}: found {start} {end}, expected 0 <= START < END <= {length}, the length of "
            "the text; correct the offsets"
        )
        raise ValueError(msg)
