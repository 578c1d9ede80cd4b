"""Write the entities or the relations of documents as a table."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from medjax.text.document import Document
from medjax.text.writers._files import checked, replacing
from medjax.text.writers.records import RecordFormat, Written

__all__ = ["ENTITY_RECORDS", "RELATION_RECORDS", "as_csv", "write_csv"]

LOGGER = logging.getLogger("medjax")
_ENTITY_COLUMNS = ("document", "label", "start", "end", "text", "score")
_END_COLUMNS = ("label", "start", "end", "text")
_RELATION_COLUMNS = (
    "document",
    "label",
    *(f"head_{column}" for column in _END_COLUMNS),
    *(f"tail_{column}" for column in _END_COLUMNS),
    "score",
)


def write_csv(
    documents: Iterable[Document], path: str | os.PathLike[str], *, relations: bool = False
) -> int:
    r"""Write a CSV file with a row for each entity, or for each relation.

    Its columns are the name of the document, or its number from 1 if it has none; label, start, end
    and text of the entity; and its score, empty if it was annotated. Relations are left out, and a
    warning to the logger ``medjax`` says how many. With `relations`, a row has the label and score
    of a relation, and label, start, end and text of its ``head`` and ``tail``. Documents without
    entities, or relations, have no row. The file is replaced once it is complete.

    Parameters
    ----------
    documents : iterable of Document
        The documents, of which one is held at a time.
    path : path
        File to write.
    relations : bool
        Write the relations instead of the entities.

    Returns
    -------
    int
        Number of documents.

    Raises
    ------
    ValueError
        If an entity is empty or outside the text, a relation refers to no entity, a score is not
        between 0 and 1, or a string has half of a surrogate pair.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from medjax.text import Entity
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "entities.csv")
    ...     _ = write_csv([Document("No fever", (Entity("Sign", 3, 8, 0.9),), "note")], file)
    ...     file.read_text().splitlines()
    ['document,label,start,end,text,score', 'note,Sign,3,8,fever,0.9']
    """
    table = RELATION_RECORDS if relations else ENTITY_RECORDS
    written = Written()
    with replacing(path) as file:
        file.write(table.header)
        for _, document in checked(documents):
            file.write(table.record(document, written))
            written = written.after(document)
    if written.relations and not relations:
        LOGGER.warning("CSV: left out relations: %d (%s)", written.relations, path)
    return written.documents


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    r"""Return rows as CSV.

    Line ends are CR LF, so that both are quoted in cells.

    Examples
    --------
    >>> as_csv([("a", 1), ("b,c", None)])
    'a,1\r\n"b,c",\r\n'
    """
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _entity_rows(document: Document, number: int) -> Iterator[Sequence[Any]]:
    for place, entity in enumerate(document.entities):
        yield document.name or number, *_cells(document, place), _score(entity.score)


def _relation_rows(document: Document, number: int) -> Iterator[Sequence[Any]]:
    for label, head, tail, score in document.relations:
        ends = (*_cells(document, head), *_cells(document, tail))
        yield document.name or number, label, *ends, _score(score)


def _cells(document: Document, place: int) -> tuple[str, int, int, str]:
    label, start, end, _ = document.entities[place]
    return label, start, end, document.text[start:end]


def _score(score: float | None) -> float | None:
    return None if score is None else float(score)


ENTITY_RECORDS = RecordFormat(
    as_csv([_ENTITY_COLUMNS]),
    lambda document, written: as_csv(_entity_rows(document, written.documents + 1)),
)
"""The rows of a table of entities."""

RELATION_RECORDS = RecordFormat(
    as_csv([_RELATION_COLUMNS]),
    lambda document, written: as_csv(_relation_rows(document, written.documents + 1)),
)
"""The rows of a table of relations."""
