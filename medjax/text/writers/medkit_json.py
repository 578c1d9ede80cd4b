"""Write medkit's JSON lines, which ``medkit.io.medkit_json.load_text_documents`` reads.

The version of the format is 0.2, that of medkit-lib 0.17.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from typing import Any

from medjax.text.document import Document, Entity
from medjax.text.writers._files import checked, replacing
from medjax.text.writers.records import RecordFormat, Written

__all__ = ["MEDKIT_RECORDS", "write_medkit_json"]

_HEADER = {"version": "0.2", "content_type": "text_document_list"}
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://medkit-lib.org/medkit_json")


def write_medkit_json(documents: Iterable[Document], path: str | os.PathLike[str]) -> int:
    r"""Write documents, their entities and relations as JSON lines of medkit.

    The score of an entity or relation becomes its attribute ``"score"``, as medkit's matchers add
    it, and the name of a document its metadata ``"name"``. Identifiers depend on the documents and
    their order alone, so the same documents give the same file. The file is replaced once it is
    complete.

    Parameters
    ----------
    documents : iterable of Document
        The documents, of which one is held at a time.
    path : path
        File to write, usually ending in ``.jsonl``.

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
    >>> from medjax.text.readers import read_medkit_json
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "notes.jsonl")
    ...     _ = write_medkit_json([Document("No fever", (Entity("Sign", 3, 8, 0.9),))], file)
    ...     read_medkit_json(file)[0].entities
    (Entity(label='Sign', start=3, end=8, score=0.9),)
    """
    written = Written()
    with replacing(path) as file:
        file.write(MEDKIT_RECORDS.header)
        for _, document in checked(documents):
            file.write(MEDKIT_RECORDS.record(document, written))
            written = written.after(document)
    return written.documents


def _line(document: Document, written: Written) -> str:
    record = _record(document, written.documents + 1)
    return f"{json.dumps(record, ensure_ascii=False)}\n"


MEDKIT_RECORDS = RecordFormat(f"{json.dumps(_HEADER)}\n", _line)
"""The lines of the file."""


def _record(document: Document, number: int) -> dict[str, Any]:
    uid = uuid.uuid5(_NAMESPACE, f"{number} {document.name}\n{document.text}")
    uids = [_uid(uid, f"entity {place}") for place in range(len(document.entities))]
    anns = [
        _entity(entity, document.text, identifier)
        for entity, identifier in zip(document.entities, uids, strict=True)
    ]
    for place, relation in enumerate(document.relations):
        ends = {"source_id": uids[relation.head], "target_id": uids[relation.tail]}
        identifier = _uid(uid, f"relation {place}")
        anns.append(_annotation("Relation", relation.label, identifier, relation.score, ends))
    return {
        "uid": str(uid),
        "text": document.text,
        "metadata": {"name": document.name} if document.name else {},
        "anns": anns,
        "_class_name": "medkit.core.text.document.TextDocument",
    }


def _entity(entity: Entity, text: str, uid: str) -> dict[str, Any]:
    span = {
        "start": int(entity.start),
        "end": int(entity.end),
        "_class_name": "medkit.core.text.span.Span",
    }
    fields = {"text": text[entity.start : entity.end], "spans": [span]}
    return _annotation("Entity", entity.label, uid, entity.score, fields)


def _annotation(
    kind: str, label: str, uid: str, score: float | None, fields: dict[str, Any]
) -> dict[str, Any]:
    attributes = []
    if score is not None:
        attributes.append(
            {
                "uid": _uid(uuid.UUID(uid), "score"),
                "label": "score",
                "value": float(score),
                "metadata": {},
                "_class_name": "medkit.core.attribute.Attribute",
            }
        )
    return {
        "uid": uid,
        "label": label,
        **fields,
        "attrs": attributes,
        "metadata": {},
        "_class_name": f"medkit.core.text.annotation.{kind}",
    }


def _uid(namespace: uuid.UUID, name: str) -> str:
    return str(uuid.uuid5(namespace, name))
