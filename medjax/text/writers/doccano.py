"""Write JSON lines as Doccano exports and imports them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from typing import Any

from medjax.text.document import Document
from medjax.text.writers._files import checked, replacing
from medjax.text.writers.records import RecordFormat, Written

__all__ = ["DOCCANO_RECORDS", "LINKED_DOCCANO_RECORDS", "write_doccano"]

LOGGER = logging.getLogger("medjax")


def write_doccano(
    documents: Iterable[Document], path: str | os.PathLike[str], *, relations: bool = False
) -> int:
    r"""Write documents as JSON lines of Doccano.

    By default each line has the entities as ``"label": [[start, end, label], ...]``, for projects
    of sequence labelling; relations are left out, and a warning to the logger ``medjax`` says how
    many. With `relations`, it has ``"entities"`` and ``"relations"`` with identifiers. Scores are
    not written. The name of a document is its metadata ``"name"``. The file is replaced once it is
    complete.

    Offsets count characters, so the project must not count grapheme clusters as one.

    Parameters
    ----------
    documents : iterable of Document
        The documents, of which one is held at a time.
    path : path
        File to write, usually ending in ``.jsonl``.
    relations : bool
        Write for projects whose entities have relations.

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
    ...     file = pathlib.Path(folder, "notes.jsonl")
    ...     _ = write_doccano([Document("No fever", (Entity("Sign", 3, 8),))], file)
    ...     file.read_text()
    '{"text": "No fever", "label": [[3, 8, "Sign"]]}\n'
    """
    written = Written()
    record = (LINKED_DOCCANO_RECORDS if relations else DOCCANO_RECORDS).record
    with replacing(path) as file:
        for _, document in checked(documents):
            file.write(record(document, written))
            written = written.after(document)
    if written.relations and not relations:
        LOGGER.warning(
            "Doccano: left out relations: %d (%s); pass relations=True to write them",
            written.relations,
            path,
        )
    return written.documents


def _labelled(document: Document, written: Written) -> str:
    del written
    spans = [[int(e.start), int(e.end), e.label] for e in document.entities]
    return _line(document, {"label": spans})


def _line(document: Document, fields: dict[str, Any]) -> str:
    name = {"name": document.name} if document.name else {}
    record = {"text": document.text, **fields, **name}
    return f"{json.dumps(record, ensure_ascii=False)}\n"


def _linked(document: Document, written: Written) -> str:
    entities = [
        {
            "id": number,
            "label": entity.label,
            "start_offset": int(entity.start),
            "end_offset": int(entity.end),
        }
        for number, entity in enumerate(document.entities, written.entities + 1)
    ]
    relations = [
        {
            "id": number,
            "from_id": entities[relation.head]["id"],
            "to_id": entities[relation.tail]["id"],
            "type": relation.label,
        }
        for number, relation in enumerate(document.relations, written.relations + 1)
    ]
    return _line(document, {"entities": entities, "relations": relations})


DOCCANO_RECORDS = RecordFormat("", _labelled)
"""The lines of a file for sequence labelling."""

LINKED_DOCCANO_RECORDS = RecordFormat("", _linked)
"""The lines of a file for projects whose entities have relations."""
