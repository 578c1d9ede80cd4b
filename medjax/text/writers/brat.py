"""Write BRAT standoff: text files, each with a file of annotations by character offsets.

The format is described at https://brat.nlplab.org/standoff.html (Stenetorp et al. 2012).
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from medjax.text.document import Document, Entity
from medjax.text.readers._files import BYTE_ORDER_MARK
from medjax.text.writers._files import checked, described, replacing
from medjax.text.writers._names import FileNames

__all__ = ["annotation_lines", "check_labels", "write_brat", "write_brat_document"]

LOGGER = logging.getLogger("medjax")
# White space that would end a line or a field of an .ann file, for BRAT or for another reader.
_BREAKS = re.compile("[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


def write_brat(documents: Iterable[Document], folder: str | os.PathLike[str]) -> int:
    r"""Write entities and relations as BRAT standoff, which `read_brat` reads as they were.

    Each document becomes a ``.txt`` and an ``.ann`` file, named after it; folders in its name are
    created. A name that is unfit for files or taken is changed, and a warning to the logger
    ``medjax`` says so; a document without a name is numbered. Existing files are replaced.

    Offsets count characters. An entity with line ends or tabs becomes one of several fragments, as
    BRAT writes it. Scores are not written.

    Parameters
    ----------
    documents : iterable of Document
        The documents, of which one is held at a time.
    folder : path
        Folder to write to, created if it is missing.

    Returns
    -------
    int
        Number of documents.

    Raises
    ------
    ValueError
        If a label is empty or has white space, a text begins with a byte order mark, an entity is
        empty or outside the text, a relation refers to no entity, a score is not between 0 and 1,
        or a string has half of a surrogate pair.

    Examples
    --------
    >>> import tempfile
    >>> document = Document("No fever.", (Entity("Sign", 3, 8),), "note")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = write_brat([document], folder)
    ...     Path(folder, "note.ann").read_text()
    'T1\tSign 3 8\tfever\n'
    """
    names, nb_documents = FileNames(), 0
    for number, document in checked(documents):
        _refuse(document, described(number, document))
        write_brat_document(document, Path(folder, names.name_for(document.name, number)))
        nb_documents = number
    if names.nb_changed:
        LOGGER.warning(
            "BRAT: documents named differently: %d (%s)", names.nb_changed, names.changes()
        )
    return nb_documents


def write_brat_document(document: Document, file: Path) -> None:
    """Write a document that `write_brat` accepts as the two files of a path without suffix."""
    with replacing(f"{file}.txt") as text:
        text.write(document.text)
    with replacing(f"{file}.ann") as ann:  # last: a text alone is no annotated document
        ann.writelines(annotation_lines(document))


def _refuse(document: Document, where: str) -> None:
    labels = [*(e.label for e in document.entities), *(r.label for r in document.relations)]
    check_labels(labels, where)
    if document.text.startswith(BYTE_ORDER_MARK):
        msg = (
            f"{where}: found a byte order mark at the beginning of the text, expected none, as "
            "readers take it for that of the file; remove it and shift the entities"
        )
        raise ValueError(msg)


def check_labels(labels: Iterable[str], where: str) -> None:
    """Raise ValueError if BRAT cannot hold a label; the message begins with `where`."""
    for label in labels:
        if label.split() != [label]:
            msg = (
                f"{where}: found the label {label!r}, expected one without white space, as BRAT "
                f"separates fields by it; rename it, for instance to {'_'.join(label.split())!r}"
            )
            raise ValueError(msg)


def annotation_lines(document: Document) -> Iterator[str]:
    r"""Yield the lines of an ``.ann`` file, those of entities first.

    Examples
    --------
    >>> list(annotation_lines(Document("No fever.", (Entity("Sign", 3, 8),))))
    ['T1\tSign 3 8\tfever\n']
    """
    for number, entity in enumerate(document.entities, start=1):
        fragments = list(_fragments(entity, document.text))
        offsets = ";".join(f"{start} {end}" for start, end in fragments)
        covered = " ".join(document.text[start:end] for start, end in fragments)
        yield f"T{number}\t{entity.label} {offsets}\t{_BREAKS.sub(' ', covered)}\n"
    for number, relation in enumerate(document.relations, start=1):
        ends = f"Arg1:T{relation.head + 1} Arg2:T{relation.tail + 1}"
        yield f"R{number}\t{relation.label} {ends}\n"


def _fragments(entity: Entity, text: str) -> Iterator[tuple[int, int]]:
    """Yield the parts of an entity between breaks; breaks at its edges belong to a part."""
    start = entity.start
    for match in _BREAKS.finditer(text, entity.start, entity.end):
        if start < match.start() and match.end() < entity.end:
            yield start, match.start()
            start = match.end()
    yield start, entity.end
