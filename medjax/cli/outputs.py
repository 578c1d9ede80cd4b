"""What a command writes, so that a later start knows what is complete."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

from medjax.cli.journal import Progress, ReadNotes, read_journal, thinned, write_journal
from medjax.cli.notes import Note, NoteError, Notes
from medjax.components import TextPrediction
from medjax.text import Document
from medjax.text.readers._files import BYTE_ORDER_MARK
from medjax.text.writers._files import check, replacing
from medjax.text.writers._names import FileNames, RepeatedNames
from medjax.text.writers.brat import annotation_lines, write_brat_document
from medjax.text.writers.records import Written

__all__ = ["BratOutput", "FileOutput", "Output", "Predicted", "Skipped", "claim"]

SETTINGS, JOURNAL = "settings.json", "progress.json"
SKIPPED, NAMES = "skipped.tsv", "names.tsv"
"""Files in the folder besides the predictions."""

_LOGGER = logging.getLogger("medjax")

_SHOWN = 5  # skipped notes that are listed at the end


def claim(folder: Path, settings: dict[str, Any]) -> None:
    """Create the folder of predictions, or make sure that it is one of an earlier, equal start.

    Parameters
    ----------
    folder : Path
        The folder.
    settings : dict
        What predictions depend on.

    Raises
    ------
    ValueError
        If the folder has other files, or predictions with other settings.
    """
    file = folder / SETTINGS
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        names = sorted(stored.keys() | settings.keys())
        differing = [
            f"{name} was {stored.get(name)!r} and is {settings.get(name)!r}"
            for name in names
            if stored.get(name) != settings.get(name)
        ]
        if differing:
            msg = (
                f"{folder} has predictions with other settings: {'; '.join(differing)}; use "
                "another folder, or remove this one"
            )
            raise ValueError(msg)
        return
    if folder.is_dir() and any(not name.startswith(".") for name in os.listdir(folder)):
        msg = f"{folder} has other files; expected a new or empty folder for the predictions"
        raise ValueError(msg)
    with replacing(file) as content:
        json.dump(settings, content, indent=2, ensure_ascii=False)


class Skipped:
    """The notes that could not be read, listed in a file.

    Parameters
    ----------
    file : Path
        The file, with name and reason of a note in each line.
    size, count : int
        Bytes and lines of it that an earlier start wrote.
    """

    def __init__(self, file: Path, size: int = 0, count: int = 0) -> None:
        self.file, self.count = file, count
        self.first: list[str] = []
        self.lines = _continued(file, size)

    def add(self, note: Note, error: Exception) -> None:
        """List a note and the reason."""
        reason = (getattr(error, "strerror", None) or str(error)).split("\n")[0]
        self.count += 1
        line = f"{note.name}\t{reason}"
        if len(self.first) < _SHOWN:
            self.first.append(line.replace("\t", ": "))
        self.lines.write(os.fsencode(f"{line}\n"))


def _continued(file: Path, size: int) -> IO[bytes]:
    """Open a file to write after its first bytes; raise ValueError if it is shorter."""
    opened = file.open("r+b" if file.exists() else "w+b")
    found = os.fstat(opened.fileno()).st_size
    if found < size:
        opened.close()
        msg = f"{file} has {found} bytes, expected at least {size}; remove its folder, start again"
        raise ValueError(msg)
    opened.truncate(size)
    opened.seek(size)
    return opened


class Predicted(NamedTuple):
    """A note with what was predicted.

    Attributes
    ----------
    document : Document
        The note, with its entities and relations.
    classes : TextPrediction or None
        Its classes, if these were predicted.
    """

    document: Document
    classes: TextPrediction | None = None


class Output(Protocol):
    """Where predictions go.

    Attributes
    ----------
    skipped : Skipped
        The notes that were left out.
    nb_complete : int
        Number of notes that an earlier start has written.
    nb_passed : int
        Number of notes that `remaining` leaves out.
    """

    skipped: Skipped
    nb_complete: int
    nb_passed: int

    def remaining(self, notes: Notes) -> Iterator[Note]:
        """Return the notes that no earlier start is known to have written or skipped."""

    def place_for(self, document: Document) -> Path | None:
        """Return where a note goes, None if it is there; called once for each, in order.

        Raises
        ------
        NoteError
            If the format cannot hold it.
        """

    def write(self, place: Path, predicted: Predicted) -> None:
        """Write a note."""

    def commit(self, notes: Sequence[Note]) -> None:
        """Note that these notes, the next of `remaining`, are written or skipped."""

    def close(self) -> None:
        """Close the files."""


class BratOutput:
    """A ``.txt`` and an ``.ann`` file for each note; it is complete if they are of this note.

    Notes whose files have another name than they are listed in ``names.tsv``.

    Parameters
    ----------
    folder : Path
        The folder.
    are_files : bool
        Whether the names are those of files, which are fit and different.
    keeps_entities : bool
        Whether the entities are given, and relations predicted.
    """

    def __init__(self, folder: Path, *, are_files: bool, keeps_entities: bool) -> None:
        self._folder, self._keeps_entities = folder, keeps_entities
        self._names = None if are_files else FileNames()
        (folder / NAMES).unlink(missing_ok=True)
        self._number = 0
        self.skipped = Skipped(folder / SKIPPED)
        self.nb_complete = self.nb_passed = 0

    def remaining(self, notes: Notes) -> Iterator[Note]:
        """Return all notes, as their files tell what is complete."""
        return iter(notes)

    def place_for(self, document: Document) -> Path | None:
        """Return the path of its two files without suffix, None if they are complete."""
        self._number += 1
        if document.text.startswith(BYTE_ORDER_MARK):
            raise NoteError(
                "its text begins with a byte order mark, which readers of BRAT leave out: all "
                "entities would be shifted; use another --format"
            )
        file = self._folder / self._chosen_name(document.name)
        if self._has(file, document):
            self.nb_complete += 1
            return None
        return file

    def _chosen_name(self, name: str) -> str:
        if self._names is None:
            return name
        chosen = self._names.name_for(name, self._number)
        if chosen != name:
            with (self._folder / NAMES).open("a", encoding="utf-8", newline="") as names:
                csv.writer(names, dialect="excel-tab").writerow((name, chosen))
        return chosen

    def _has(self, file: Path, document: Document) -> bool:
        try:
            text = Path(f"{file}.txt").read_bytes().decode()
            lines = Path(f"{file}.ann").read_bytes().decode()
        except (OSError, ValueError):
            return False
        given = "".join(annotation_lines(document))
        has_others = lines[len(given) :].startswith("T")
        is_of_note = text == document.text and lines.startswith(given)
        return is_of_note and not (self._keeps_entities and has_others)

    def write(self, place: Path, predicted: Predicted) -> None:
        """Write the two files, ``.ann`` last."""
        write_brat_document(predicted.document, place)

    def commit(self, notes: Sequence[Note]) -> None:
        """Make the list of skipped notes complete."""
        del notes
        self.skipped.lines.flush()

    def close(self) -> None:
        """Close the list of skipped notes, and tell which have files of another name."""
        self.skipped.lines.close()
        if self._names is not None and self._names.nb_changed:
            _LOGGER.warning(
                f"{self._names.nb_changed:,} notes have files of another name, listed in "
                f"{self._folder / NAMES}: {self._names.changes()}"
            )


class FileOutput:
    """One file with a record for each note, and a journal of how far it is complete.

    A name that several notes have is told, as their records cannot be told apart. As later records
    number on from earlier ones, a note that has changed is predicted again with
    all that follow it in the file. The journal has marks that a start can go back to.

    Parameters
    ----------
    folder : Path
        The folder.
    name : str
        Name of the file.
    header : str
        What it begins with.
    record : callable
        ``record(predicted, written)`` returns what is written of a note.
    with_entities : bool
        Whether the entities are given, and relations predicted.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        header: str,
        record: Callable[[Predicted, Written], str],
        *,
        with_entities: bool,
    ) -> None:
        self._record, self._with_entities = record, with_entities
        self._journal = folder / JOURNAL
        done, self._marks = read_journal(self._journal)
        self._file = folder / name
        self._records = _continued(self._file, done.size)
        self._header = header.encode()
        if done.size == 0:
            self._records.write(self._header)
        self.skipped = Skipped(folder / SKIPPED, done.skipped_size, done.nb_skipped)
        self._done, self._written = done, Written(*done.written)
        self._read = ReadNotes()
        self._names = RepeatedNames()
        self._waiting: list[bytes] = []
        self.nb_complete = self._written.documents
        self.nb_passed = done.nb_notes

    def remaining(self, notes: Notes) -> Iterator[Note]:
        """Return the notes after those in the journal that are as they were.

        Raises
        ------
        ValueError
            If the notes in the journal are not the first ones.
        """
        done, read = self._done, ReadNotes()
        reached, self._read = Progress(), read.copy()
        marks = {mark.nb_notes: mark for mark in (*self._marks, done)}
        for number, note in enumerate(itertools.islice(notes, done.nb_notes), start=1):
            read.add(note, note.digest(with_entities=self._with_entities))
            mark = marks.get(number)
            if mark is not None and mark.contents in ("", read.contents.hexdigest()):
                reached, self._read = mark, read.copy()
        if read.names.hexdigest() != (done.keys or ReadNotes().names.hexdigest()):
            msg = (
                f"{self._file} has predictions of the first {done.nb_notes:,} notes, but "
                "these are others now; use another folder for the notes that are there now"
            )
            raise ValueError(msg)
        if done.nb_notes and not done.contents:
            _LOGGER.warning(
                f"{self._journal} is of an older version and does not tell whether notes have "
                f"changed: the predictions of the first {done.nb_notes:,} are kept"
            )
        if reached.nb_notes < done.nb_notes:
            _LOGGER.warning(
                f"{self._file}: some of the first {done.nb_notes:,} notes have changed since; "
                f"predicting again from note {reached.nb_notes + 1:,} on"
            )
            self._go_back(reached)
        for note in itertools.islice(notes, reached.nb_notes):
            self._names.add(note.name)
        return self._digested(itertools.islice(notes, reached.nb_notes, None))

    def _go_back(self, mark: Progress) -> None:
        """Forget what was written after a mark."""
        self._done, self._written = mark, Written(*mark.written)
        self._marks = [earlier for earlier in self._marks if earlier.nb_notes < mark.nb_notes]
        # The journal first: files may be longer than it tells, but not shorter.
        write_journal(self._journal, mark, self._marks)
        sizes = ((self._records, mark.size), (self.skipped.lines, mark.skipped_size))
        for file, size in sizes:
            file.truncate(size)
            file.seek(size)
        if mark.size == 0:
            self._records.write(self._header)
        self.skipped.count = mark.nb_skipped
        self.nb_complete, self.nb_passed = self._written.documents, mark.nb_notes

    def _digested(self, notes: Iterator[Note]) -> Iterator[Note]:
        for note in notes:
            # Before it is read: if it changes in between, a later start predicts it again.
            self._waiting.append(note.digest(with_entities=self._with_entities))
            self._names.add(note.name)
            yield note

    def place_for(self, document: Document) -> Path | None:
        """Return the file."""
        del document
        return self._file

    def write(self, place: Path, predicted: Predicted) -> None:
        """Append the record of a note."""
        del place
        check(predicted.document, predicted.document.name)
        self._records.write(self._record(predicted, self._written).encode())
        self._written = self._written.after(predicted.document)

    def commit(self, notes: Sequence[Note]) -> None:
        """Write the journal, after what it tells of is on the disk."""
        for note, digest in zip(notes, self._waiting, strict=True):
            self._read.add(note, digest)
        self._waiting.clear()
        for file in (self._records, self.skipped.lines):
            file.flush()
            os.fsync(file.fileno())
        if self._done.contents:
            self._marks = thinned([*self._marks, self._done])
        self._done = Progress(
            nb_notes=self._done.nb_notes + len(notes),
            keys=self._read.names.hexdigest(),
            written=self._written,
            size=self._records.tell(),
            nb_skipped=self.skipped.count,
            skipped_size=self.skipped.lines.tell(),
            contents=self._read.contents.hexdigest(),
        )
        write_journal(self._journal, self._done, self._marks)

    def close(self) -> None:
        """Close the file and the list of skipped notes, and tell names that several notes have."""
        self._records.close()
        self.skipped.lines.close()
        if told := self._names.told():
            _LOGGER.warning(f"{self._file}: {told}")
