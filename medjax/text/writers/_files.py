"""Replace files as a whole, and refuse documents that no file can hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from medjax.text.document import Document, Entity, Relation


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    r"""Open a file for writing that takes the place of `path` once it is complete.

    After an error, `path` is as it was. Missing folders are created. The encoding is UTF-8; line
    ends are written as they are.

    Parameters
    ----------
    path : path
        File to write.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.txt")) as file:
    ...         _ = file.write("Fièvre\r\n")
    ...     Path(folder, "a.txt").read_bytes().decode()
    'Fièvre\r\n'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.new")  # readers ignore hidden files
    try:
        with staging.open("w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(staging, path)
    except BaseException:
        staging.unlink(missing_ok=True)
        raise


def checked(documents: Iterable[Document]) -> Iterator[tuple[int, Document]]:
    """Yield the number of each document, from 1, and the document.

    Raises
    ------
    ValueError
        If an entity is empty or outside the text, a relation refers to no entity, a score is not
        between 0 and 1, or a text, name or label has half of a surrogate pair, which UTF-8 cannot
        hold.

    Examples
    --------
    >>> list(checked([Document("No fever")]))
    [(1, Document(text='No fever', entities=(), name=''))]
    """
    for number, document in enumerate(documents, start=1):
        check(document, described(number, document))
        yield number, document


def check(document: Document, where: str) -> None:
    """Raise the errors of `checked`, which begin with `where`."""
    size = len(document.text)
    for entity in document.entities:
        if not 0 <= entity.start < entity.end <= size:
            msg = (
                f"{where}: found {entity.label} at {entity.start} to {entity.end}, expected "
                f"0 <= start < end <= {size}, the length of the text"
            )
            raise ValueError(msg)
    for relation in document.relations:
        if not all(0 <= end < len(document.entities) for end in (relation.head, relation.tail)):
            msg = (
                f"{where}: found {relation}, expected head and tail to be places in its "
                f"{len(document.entities)} entities"
            )
            raise ValueError(msg)
    annotations: tuple[Entity | Relation, ...] = (*document.entities, *document.relations)
    for annotation in annotations:
        if annotation.score is not None and not 0 <= annotation.score <= 1:
            msg = f"{where}: found {annotation}, expected a score from 0 to 1, or None"
            raise ValueError(msg)
    for string in (document.text, document.name, *(each.label for each in annotations)):
        _refuse_surrogates(string, where)


def _refuse_surrogates(string: str, where: str) -> None:
    try:
        string.encode()
    except UnicodeEncodeError as error:
        msg = (
            f"{where}: found {string[error.start]!r} at position {error.start} of "
            f"{string[:40]!r}, half of a surrogate pair; expected characters that UTF-8 can hold"
        )
        raise ValueError(msg) from error


def described(number: int, document: Document) -> str:
    """Return what a message calls a document.

    Examples
    --------
    >>> described(3, Document("No fever", name="a"))
    "document 3 ('a')"
    """
    return f"document {number} ({document.name!r})" if document.name else f"document {number}"
