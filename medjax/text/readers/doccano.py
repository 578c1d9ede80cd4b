"""Read the JSON lines that Doccano exports of sequence labelling and relation extraction."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medjax.text.document import Document, Entity, Relation
from medjax.text.readers._dropped import Tally
from medjax.text.readers._files import Texts
from medjax.text.readers._foreign import refuse_other_json, refuse_other_text
from medjax.text.readers._json import field, parse_json_lines
from medjax.text.readers._linked import linked_document
from medjax.text.readers._places import check_range

__all__ = ["read_doccano"]

_FORMAT = "a Doccano export"
_COMMENTS = "comments"


def read_doccano(
    path: str | os.PathLike[str],
    *,
    text: str = "text",
    label: str | None = None,
    overlapping: bool = False,
    encoding: str = "utf-8",
) -> list[Document]:
    r"""Read the entities and relations of a Doccano export.

    A line of a project for sequence labelling has ``[start, end, label]`` for each entity, one for
    relation extraction has ``entities`` and ``relations``. Offsets count characters; the export
    does not contain the annotated text, so that only their range can be checked.

    Parameters
    ----------
    path : path
        A file of JSON lines, or of a JSON list.
    text : str
        Name of the field with the text.
    label : str, optional
        Name of the field with the entities of sequence labelling. By default ``label`` or, failing
        that, ``labels``.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is, and a warning to
        the logger ``medjax`` says how many entities and relations were left out.
    encoding : str
        Encoding of the file, which may have a byte order mark.

    Returns
    -------
    list of Document
        The documents, named after their file and line.

    Raises
    ------
    ValueError
        If a line is not JSON or of another kind, an entity is outside the text, or a relation
        refers to an entity that is not there.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.jsonl")
    ...     _ = file.write_text('{"text": "No fever", "label": [[3, 8, "Sign"]]}\n')
    ...     read_doccano(file)[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)
    """
    path, tally = Path(path), Tally()
    with Texts(encoding) as texts:
        content = texts.read(path)
    refuse_other_text(path, content, _FORMAT)
    refuse_other_json(path, content, _FORMAT)
    documents = []
    for where, record in parse_json_lines(content, path, _FORMAT):
        written = field(record, text, where, str)
        if isinstance(record.get("Comments"), list):
            tally.add(str(path), _COMMENTS, len(record["Comments"]))
        if label is None and "entities" in record:
            entities, relations = _linked(record, len(written), where)
        else:
            name = label or ("label" if "label" in record else "labels")
            entities, relations = list(_labelled(record, name, len(written), where)), []
        documents.append(
            linked_document(
                written,
                entities,
                relations,
                where.removeprefix(f"{path.parent}{os.sep}"),
                overlapping=overlapping,
                file=str(path),
                tally=tally,
            )
        )
    tally.warn("Doccano")
    return documents


def _labelled(record: Any, name: str, length: int, where: str) -> Iterator[Entity]:
    """Yield the entities of a line of sequence labelling."""
    for item in field(record, name, where, list):
        if isinstance(item, str):
            msg = (
                f"{where}: found the class {item!r:.60} in {name!r}, expected [START, END, LABEL]; "
                "medjax.text.readers.read_texts reads labelled texts"
            )
            raise ValueError(msg)
        kinds = [type(part) for part in item] if isinstance(item, list) else []
        if kinds != [int, int, str]:
            raise ValueError(f"{where}: found {item!r:.60}, expected [START, END, LABEL]")
        start, end, label = item
        check_range(start, end, length, where)
        yield Entity(label, start, end)


def _linked(record: Any, length: int, where: str) -> tuple[list[Entity], list[Relation]]:
    """Return entities and relations of a line of relation extraction."""
    entities: list[Entity] = []
    places: dict[int, int] = {}
    for item in field(record, "entities", where, list):
        number = field(item, "id", where, int)
        start = field(item, "start_offset", where, int)
        end = field(item, "end_offset", where, int)
        check_range(start, end, length, where)
        if number in places:
            raise ValueError(f"{where}: found two entities of the id {number}, expected one")
        places[number] = len(entities)
        entities.append(Entity(field(item, "label", where, str), start, end))
    relations = []
    for item in field(record, "relations", where, list, default=[]):
        ends = [field(item, name, where, int) for name in ("from_id", "to_id")]
        for number in ends:
            if number not in places:
                msg = (
                    f"{where}: found a relation of the entity {number}, expected one of "
                    f"{[*places]!s:.120}; export the entities too"
                )
                raise ValueError(msg)
        label = field(item, "type", where, str)
        relations.append(Relation(label, places[ends[0]], places[ends[1]]))
    return entities, relations
