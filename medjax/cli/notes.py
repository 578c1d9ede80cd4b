"""The notes that a command reads: found by name first, then read one at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from medjax.text import Document
from medjax.text.readers import read_brat
from medjax.text.readers._files import BYTE_ORDER_MARK

__all__ = ["FolderNotes", "LineNotes", "Note", "NoteError", "Notes", "find_notes"]

_TEXT = ".txt"
_LINES = (".jsonl", ".ndjson")
_NAMES = ("name", "id", "uid")
"""Fields of a line of JSON that name the note."""

_BLOCK = 1 << 20  # bytes that are read at once to count lines


class NoteError(ValueError):
    """A note cannot be read; the message is the reason."""


class Note(NamedTuple):
    """A note that has not been read.

    Attributes
    ----------
    name : str
        Its path within the folder without suffix, or the name in its line.
    key : bytes
        What a later start knows it by.
    content : Path, str or NoteError
        Its file, its text, or why it has none.
    """

    name: str
    key: bytes
    content: Path | str | NoteError

    def digest(self, *, with_entities: bool) -> bytes:
        """Return a SHA-256 of its content, which a later start compares.

        Parameters
        ----------
        with_entities : bool
            Whether the ``.ann`` file beside it belongs to the content.
        """
        if not isinstance(self.content, Path):
            return hashlib.sha256(self.key).digest()  # the line has it all
        files = [self.content]
        if with_entities:
            files.append(self.content.with_suffix(".ann"))
        digest = hashlib.sha256()
        for file in files:
            try:
                content = file.read_bytes()
            except OSError:  # `read` says why
                content = b""
            digest.update(hashlib.sha256(content).digest())
        return digest.digest()

    def read(self, *, with_entities: bool) -> Document:
        """Return the note.

        Parameters
        ----------
        with_entities : bool
            Read the entities from the ``.ann`` file beside it.

        Raises
        ------
        ValueError or OSError
            If the file cannot be read, is empty, not UTF-8, or lacks the entities.
        """
        if isinstance(self.content, NoteError):
            raise self.content
        document = Document(_text_of(self.content), name=self.name)
        try:
            f"{document.name}{document.text}".encode()
        except UnicodeEncodeError as error:
            msg = f"half of a surrogate pair at character {error.start}, which UTF-8 cannot hold"
            raise NoteError(msg) from error
        if not with_entities:
            return document
        if not isinstance(self.content, Path):
            raise NoteError("a line of JSON, without entities; relations need a BRAT folder")
        ann = self.content.with_suffix(".ann")
        if not ann.is_file():
            raise NoteError(f"no {ann.name} with its entities")
        (annotated,) = read_brat([ann], overlapping=True).documents
        return annotated._replace(name=self.name, relations=())


def _text_of(content: Path | str) -> str:
    text = content if isinstance(content, str) else _content_of(content)
    if not text.strip():
        raise NoteError("empty")
    if "\0" in text:
        raise NoteError("not text: it has zero bytes")
    return text


def _content_of(file: Path) -> str:
    """Return the text of a file without a byte order mark, which belongs to the file."""
    try:
        return file.read_bytes().decode().lstrip(BYTE_ORDER_MARK)
    except UnicodeDecodeError as error:
        found = error.object[error.start]
        raise NoteError(f"not UTF-8: byte {found:#04x} at {error.start}") from error


class Notes(Protocol):
    """Notes in an order that does not depend on the start.

    Attributes
    ----------
    are_files : bool
        Whether each is a file, so that their names are different and fit for files.
    """

    are_files: bool

    def __len__(self) -> int:
        """Return the number of notes."""

    def __iter__(self) -> Iterator[Note]:
        """Yield the notes, of which none is read."""


class FolderNotes:
    """The ``.txt`` files in a folder and its subfolders, sorted; of them, only names are held.

    ``.TXT`` is the same. Names that begin with a full stop are left out.

    Parameters
    ----------
    folder : Path
        The folder.

    Raises
    ------
    ValueError
        If there are none, or two whose names differ in the suffix only.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "b.txt").write_text("No fever.")
    ...     _ = Path(folder, "a.txt").write_text("No cough.")
    ...     [note.name for note in FolderNotes(Path(folder))]
    ['a', 'b']
    """

    are_files = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = list(_text_files(str(folder), "", set()))
        if not self._files:
            raise ValueError(f"{folder}: found no .txt file, expected a folder of notes")

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._files)

    def __iter__(self) -> Iterator[Note]:
        """Yield a note for each file."""
        for file in self._files:
            yield Note(os.path.splitext(file)[0], os.fsencode(file), self._folder / file)


def _text_files(folder: str, within: str, visited: set[str]) -> Iterator[str]:
    """Yield the paths of text files, relative to the folder that the search began in."""
    real = os.path.realpath(os.path.join(folder, within))
    if real in visited:
        return
    visited.add(real)
    files: dict[str, str] = {}
    with os.scandir(real) as entries:
        found = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
    for name, is_folder in found:
        path = f"{within}/{name}" if within else name
        if is_folder:
            yield from _text_files(folder, path, visited)
        elif name.lower().endswith(_TEXT):
            stem = os.path.splitext(path)[0]
            if (other := files.setdefault(stem, path)) != path:
                msg = (
                    f"{folder}: found {other} and {path}, expected names that differ without the "
                    "suffix, as predictions are named after the notes; rename one"
                )
                raise ValueError(msg)
            yield path


class FileNote:
    """A single text file.

    Parameters
    ----------
    file : Path
        The file.
    """

    are_files = True

    def __init__(self, file: Path) -> None:
        self._file = file

    def __len__(self) -> int:
        """Return 1."""
        return 1

    def __iter__(self) -> Iterator[Note]:
        """Yield the note."""
        yield Note(self._file.stem, os.fsencode(self._file.name), self._file)


class LineNotes:
    """The lines of a file, each an object of JSON with a ``text``.

    Parameters
    ----------
    file : Path
        The file.
    """

    are_files = False

    def __init__(self, file: Path) -> None:
        self._file = file
        self._length = 0
        with file.open("rb") as lines:
            while block := lines.read(_BLOCK):
                self._length += block.count(b"\n")

    def __len__(self) -> int:
        """Return the number of lines that end, for a progress bar."""
        return self._length

    def __iter__(self) -> Iterator[Note]:
        """Yield a note for each line that is not blank."""
        with self._file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    name = f"{self._file.stem}-{number}"
                    try:
                        record = _record(line)
                    except ValueError as error:
                        yield Note(name, line, NoteError(str(error)))
                    else:
                        yield Note(_name_in(record) or name, line, record["text"])


def _record(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode().lstrip(BYTE_ORDER_MARK))
    except (ValueError, RecursionError) as error:
        raise NoteError(f"not JSON in UTF-8 ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("text"), str):
        raise NoteError("found no string called text, expected an object of JSON with one")
    return record


def _name_in(record: dict[str, Any]) -> str:
    named = (record[field] for field in _NAMES if field in record)
    return next((str(name) for name in named if isinstance(name, str | int)), "")


def find_notes(path: Path, format: str | None = None) -> Notes:
    """Return the notes of a folder, a text file, or a file of JSON lines.

    Parameters
    ----------
    path : Path
        The folder or file.
    format : {"text", "jsonl"}, optional
        What it is; told from the suffix by default.

    Raises
    ------
    ValueError
        If it is none of these, or a folder without notes.
    FileNotFoundError
        If it is not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        if format == "jsonl":
            msg = f"{path}: found a folder, expected a file of JSON lines; use --input-format text"
            raise ValueError(msg)
        return FolderNotes(path)
    if format == "text" or (format is None and path.suffix.lower() == _TEXT):
        return FileNote(path)
    if format == "jsonl" or path.suffix.lower() in _LINES:
        return LineNotes(path)
    msg = (
        f"{path}: found the suffix {path.suffix!r}, expected a folder of .txt files, a .txt file, "
        f"or JSON lines ({', '.join(_LINES)}); say what it is with --input-format text or jsonl"
    )
    raise ValueError(msg)
