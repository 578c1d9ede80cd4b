"""The journal of a file of predictions: how far it is complete, and of which notes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medjax.cli.notes import Note
from medjax.text.writers._files import replacing

__all__ = ["Progress", "ReadNotes", "read_journal", "thinned", "write_journal"]

_MARKS = "marks"
_NB_MARKS = 64  # at most, so that the journal stays small


class ReadNotes:
    """Running SHA-256 of the names of notes, and of their contents.

    Attributes
    ----------
    names, contents : hash
        The hashes.
    """

    def __init__(self) -> None:
        self.names, self.contents = hashlib.sha256(), hashlib.sha256()

    def add(self, note: Note, digest: bytes) -> None:
        """Add a note and the digest of its content."""
        self.names.update(hashlib.sha256(note.key).digest())
        self.contents.update(digest)

    def copy(self) -> ReadNotes:
        """Return one that goes on apart."""
        copied = ReadNotes()
        copied.names, copied.contents = self.names.copy(), self.contents.copy()
        return copied


class Progress(NamedTuple):
    """How far a file is complete.

    Attributes
    ----------
    nb_notes : int
        Number of notes that are written or skipped.
    keys, contents : str
        SHA-256 of their names and of their contents; `contents` is empty in journals of older
        versions.
    written : sequence of int
        The fields of `medjax.text.writers.records.Written`.
    size : int
        Bytes of the file.
    nb_skipped, skipped_size : int
        Lines and bytes of the list of skipped notes.
    """

    nb_notes: int = 0
    keys: str = ""
    written: Sequence[int] = (0, 0, 0)
    size: int = 0
    nb_skipped: int = 0
    skipped_size: int = 0
    contents: str = ""


def read_journal(file: Path) -> tuple[Progress, list[Progress]]:
    """Return the last state in a journal, or that of none, and earlier ones to go back to.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if not file.exists():
        return Progress(), []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        marks = [Progress(**mark) for mark in content.pop(_MARKS, ())]
        return Progress(**content), marks
    except (ValueError, TypeError, AttributeError) as error:
        msg = f"{file} is damaged ({error}); remove its folder, start again"
        raise ValueError(msg) from error


def write_journal(file: Path, done: Progress, marks: Sequence[Progress]) -> None:
    """Write a journal to the disk."""
    content = {**done._asdict(), _MARKS: [mark._asdict() for mark in marks]}
    with replacing(file) as journal:
        json.dump(content, journal)
        journal.flush()
        os.fsync(journal.fileno())


def thinned(marks: list[Progress]) -> list[Progress]:
    """Return the marks or, if there are too many, every second one with the first and the last.

    They are closest at the end: from a mark far before it, there is much to predict in any case.
    """
    return marks if len(marks) <= _NB_MARKS else marks[::-2][::-1]
