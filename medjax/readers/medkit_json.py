"""medkit's JSON: documents as the module ``medkit.io.medkit_json`` writes them.

The format is version 0.2, that of medkit-lib 0.17.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medjax.readers._files import LOGGER, build_document, merge_fragments, read_text
from medjax.text import Document, Entity

_VERSION = "0.2"
_ONE, _MANY, _ANNOTATIONS = "text_document", "text_document_list", "text_annotation_list"


def read_medkit_json(
    path: str | os.PathLike[str],
    anns_path: str | os.PathLike[str] | None = None,
    *,
    encoding: str = "utf-8",
) -> list[Document]:
    """Read the entities of documents saved by medkit.

    Segments, relations and attributes are left out. An entity reaches from the start of its first
    to the end of its last original span, as in medkit's own training; one with no original span
    (inserted text) is left out. Of overlapping entities the longest is kept. A warning of the
    logger ``medjax`` says how many were dropped.

    Parameters
    ----------
    path : path
        What ``save_text_documents`` (JSON lines) or ``save_text_document`` wrote.
    anns_path : path, optional
        The annotations of a single document, where they were saved apart (``split_anns=True``).
    encoding : str
        Encoding of the files.

    Returns
    -------
    list of Document
        Named by file and line.

    Raises
    ------
    ValueError
        If a file is not JSON, of another kind or version, lacks a field, or an entity lies outside
        the text or stands for another text than it gives.
    """
    path = Path(path)
    records, apart = _records(path, encoding), []
    if anns_path is not None:
        apart = _lines(Path(anns_path), read_text(Path(anns_path), encoding), _ANNOTATIONS)
        if len(records) != 1:
            msg = f"{path}: found {len(records)} documents, expected one for annotations kept apart"
            raise ValueError(msg)
    documents, nb_dropped = [], 0
    for where, record in records:
        text = _field(record, "text", str, where)
        anns = [(where, ann) for ann in _field(record, "anns", list, where, [])] + apart
        entities = [_entity(ann, text, at) for at, ann in anns if _is_entity(ann, at)]
        inside = [entity for entity in entities if entity is not None]
        document, nb_overlaps = build_document(text, inside, where.removeprefix(f"{path.parent}/"))
        documents.append(document)
        nb_dropped += nb_overlaps + len(entities) - len(inside)
    if nb_dropped:
        LOGGER.warning(
            "%s: %d entities dropped for overlapping a longer one or having no original span",
            path,
            nb_dropped,
        )
    return documents


def _records(path: Path, encoding: str) -> list[tuple[str, Any]]:
    text = read_text(path, encoding)
    try:
        header = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        header = None  # a single document is written over several lines
    if isinstance(header, dict) and "content" not in header:
        return _lines(path, text, _MANY)
    where = f"{path}:1"
    record = _parse(text, path, 1)
    _check_header(record, _ONE, where)
    return [(where, _field(record, "content", dict, where))]


def _lines(path: Path, text: str, content_type: str) -> list[tuple[str, Any]]:
    header, *lines = text.split("\n")
    _check_header(_parse(header, path, 1), content_type, f"{path}:1")
    return [
        (f"{path}:{number}", _parse(line, path, number))
        for number, line in enumerate(lines, start=2)
        if line.strip()
    ]


def _parse(text: str, path: Path, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = number + error.lineno - 1
        msg = f"{path}:{line}: found no JSON ({error.msg}, column {error.colno}), expected medkit's"
        raise ValueError(msg) from error
    except (ValueError, RecursionError) as error:  # a number too long, brackets too deep
        msg = f"{path}:{number}: found JSON that cannot be read ({error}), expected medkit's"
        raise ValueError(msg) from error


def _check_header(header: Any, content_type: str, where: str) -> None:
    found = (_field(header, "version", str, where), _field(header, "content_type", str, where))
    if found != (_VERSION, content_type):
        msg = f"{where}: found version and content {found}, expected {(_VERSION, content_type)}"
        raise ValueError(msg)


def _field(record: Any, name: str, kind: type, where: str, default: Any = None) -> Any:
    value = record.get(name, default) if isinstance(record, dict) else None
    if not isinstance(value, kind):
        msg = f"{where}: found {value!r:.60} as {name!r}, expected a {kind.__name__}"
        raise ValueError(msg)
    return value


def _is_entity(ann: Any, where: str) -> bool:
    return bool(_field(ann, "_class_name", str, where).rpartition(".")[2] == "Entity")


def _entity(ann: dict[str, Any], text: str, where: str) -> Entity | None:
    label = _field(ann, "label", str, where)
    fragments, is_original = [], True
    for span in _field(ann, "spans", list, where):
        if (
            isinstance(span, dict) and "replaced_spans" in span
        ):  # a ModifiedSpan: text that stands for some of the original
            is_original = False
            replaced = _field(span, "replaced_spans", list, where)
        else:
            replaced = [span]
        for piece in replaced:
            start, end = _field(piece, "start", int, where), _field(piece, "end", int, where)
            if not 0 <= start <= end <= len(text):
                msg = f"{where}: found {label} at {start} to {end}, expected it in 0 to {len(text)}"
                raise ValueError(msg)
            fragments.append((start, end))
    covered = "".join(text[start:end] for start, end in fragments)
    if is_original and covered != _field(ann, "text", str, where):
        msg = f"{where}: found the text {ann['text']!r}, expected {covered!r}, at its offsets"
        raise ValueError(msg)
    merged = merge_fragments([(start, end) for start, end in fragments if start < end], text)
    return Entity(label, merged[0][0], merged[-1][1]) if merged else None
