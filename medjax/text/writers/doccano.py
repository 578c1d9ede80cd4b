"""Write JSON lines as Doccano exports and imports them."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from itertools import count
from typing import Any

from medjax.text.document import Document
from medjax.text.writers._files import checked, replacing

__all__ = ["write_doccano"]

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
    nb_documents, nb_left_out = 0, 0
    identifiers = count(1), count(1)
    with replacing(path) as file:
        for number, document in checked(documents):
            fields: dict[str, Any]
            if relations:
                fields = _linked(document, *identifiers)
            else:
                fields = {"label": [[int(e.start), int(e.end), e.label] for e in document.entities]}
                nb_left_out += len(document.relations)
            name = {"name": document.name} if document.name else {}
            record = {"text": document.text, **fields, **name}
            file.write(f"{json.dumps(record, ensure_ascii=False)}\n")
            nb_documents = number
    if nb_left_out:
        LOGGER.warning(
            "Doccano: left out relations: %d (%s); pass relations=True to write them",
            nb_left_out,
            path,
        )
    return nb_documents


def _linked(
    document: Document, entity_ids: count[int], relation_ids: count[int]
) -> dict[str, list[dict[str, Any]]]:
    entities = [
        {
            "id": next(entity_ids),
            "label": entity.label,
            "start_offset": int(entity.start),
            "end_offset": int(entity.end),
        }
        for entity in document.entities
    ]
    relations = [
        {
            "id": next(relation_ids),
            "from_id": entities[relation.head]["id"],
            "to_id": entities[relation.tail]["id"],
            "type": relation.label,
        }
        for relation in document.relations
    ]
    return {"entities": entities, "relations": relations}
