"""Read medkit's JSON: documents as the module ``medkit.io.medkit_json`` writes them.

The version of the format is 0.2, that of medkit-lib 0.17.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from medjax.text.document import Document, Entity
from medjax.text.readers._annotations import Annotations
from medjax.text.readers._dropped import ATTRIBUTES, Tally
from medjax.text.readers._files import Texts, merge_fragments, split_lines
from medjax.text.readers._foreign import refuse_other_json, refuse_other_text
from medjax.text.readers._json import field, parse_json

__all__ = ["read_medkit_json"]

_VERSION = "0.2"
_ONE, _MANY, _ANNOTATIONS = "text_document", "text_document_list", "text_annotation_list"
_SEGMENTS = "segments"
_SCORE = "score"  # the attribute of medkit's own matchers
_INSERTED = "entities with no original span"


def read_medkit_json(
    path: str | os.PathLike[str],
    anns_path: str | os.PathLike[str] | None = None,
    *,
    encoding: str = "utf-8",
    overlapping: bool = False,
) -> list[Document]:
    r"""Read the entities and relations of documents saved by medkit.

    An entity reaches from the start of its first original span to the end of its last, as in
    medkit's own training; an entity without any original span (inserted text) is left out. The
    longest of overlapping entities is kept, unless `overlapping`. An attribute ``"score"`` with a
    decimal number from 0 to 1, as medkit's matchers add it, is the score of its entity or relation.
    Left out are segments, other attributes, and relations of segments or of entities that are left
    out. A warning to the logger ``medjax`` says what was left out.

    Parameters
    ----------
    path : path
        A file written by ``save_text_documents`` (JSON lines) or ``save_text_document``.
    anns_path : path, optional
        The annotations of a single document, if they were saved separately (``split_anns=True``).
    encoding : str
        Encoding of the files, which may have a byte order mark.
    overlapping : bool
        Keep all entities, sorted by start, end and label.

    Returns
    -------
    list of Document
        The documents, named after their file and line.

    Raises
    ------
    ValueError
        If a file is not JSON, has another kind or version, or lacks a field, or if an entity is
        outside the text or its text differs from that at its offsets.

    Examples
    --------
    >>> import tempfile
    >>> header = {"version": "0.2", "content_type": "text_document_list"}
    >>> entity = {"_class_name": "Entity", "label": "Sign", "text": "fever",
    ...     "spans": [{"start": 3, "end": 8}]}
    >>> lines = [json.dumps(header), json.dumps({"text": "No fever", "anns": [entity]})]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.jsonl")
    ...     _ = file.write_text("\n".join(lines))
    ...     read_medkit_json(file)[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)
    """
    path, tally = Path(path), Tally()
    with Texts(encoding) as texts:
        records, separate = _records(path, texts.read(path)), []
        if anns_path is not None:
            anns_path = Path(anns_path)
            separate = _lines(anns_path, texts.read(anns_path), _ANNOTATIONS)
    if anns_path is not None and len(records) != 1:
        msg = f"{path}: found {len(records)} documents, expected one, as anns_path is given"
        raise ValueError(msg)
    documents = []
    for where, record in records:
        text = field(record, "text", where, str)
        tally.add(str(path), ATTRIBUTES, len(_attributes(record)))
        annotations = Annotations(str(path), tally)
        anns = [(where, ann) for ann in field(record, "anns", where, list, default=[])] + separate
        for at, ann in anns:
            _add(ann, text, at, annotations, str(path), tally)
        name = where.removeprefix(f"{path.parent}{os.sep}")
        documents.append(annotations.document(text, name, overlapping=overlapping))
    tally.warn("medkit JSON")
    return documents


def _records(path: Path, text: str) -> list[tuple[str, Any]]:
    refuse_other_text(path, text, "medkit JSON")
    refuse_other_json(path, text, "medkit JSON")
    try:
        header = json.loads(split_lines(text)[0])
    except (ValueError, RecursionError):
        header = None  # a single document is written on several lines
    if isinstance(header, dict) and "content" not in header:
        return _lines(path, text, _MANY)
    where = f"{path}:1"
    record = parse_json(text, path, "medkit JSON")
    _check_header(record, _ONE, where)
    return [(where, field(record, "content", where, dict))]


def _lines(path: Path, text: str, content_type: str) -> list[tuple[str, Any]]:
    header, *lines = split_lines(text)
    _check_header(parse_json(header, path, "medkit JSON"), content_type, f"{path}:1")
    return [
        (f"{path}:{number}", parse_json(line, path, "medkit JSON", number))
        for number, line in enumerate(lines, start=2)
        if line.strip()
    ]


def _check_header(header: Any, content_type: str, where: str) -> None:
    if not isinstance(header, dict) or not {"version", "content_type"} & set(header):
        msg = (
            f"{where}: found {header!r:.60}, expected the header of medkit JSON, "
            f'{{"version": "{_VERSION}", "content_type": "{content_type}"}}'
        )
        raise ValueError(msg)
    version = field(header, "version", where, str)
    kind = field(header, "content_type", where, str)
    if (version, kind) != (_VERSION, content_type):
        msg = (
            f"{where}: found version and content {(version, kind)}, expected "
            f"{(_VERSION, content_type)}"
        )
        if kind.startswith("audio_"):
            msg += "; audio has no text, pass the documents of its transcription"
        elif kind == _ANNOTATIONS:
            msg += "; pass the document as path and these annotations as anns_path"
        raise ValueError(msg)


def _attributes(record: Any) -> list[Any]:
    attributes = record.get("attrs") if isinstance(record, dict) else None
    return attributes if isinstance(attributes, list) else []


def _score(ann: Any) -> tuple[float | None, int]:
    """Return the score of an annotation, and the number of its other attributes."""
    attributes = _attributes(ann)
    scores = [
        attribute["value"]
        for attribute in attributes
        if isinstance(attribute, dict)
        and attribute.get("label") == _SCORE
        and isinstance(attribute.get("value"), float)
        and 0 <= attribute["value"] <= 1
    ]
    # Of several scores, none is the one.
    return (scores[0], len(attributes) - 1) if len(scores) == 1 else (None, len(attributes))


def _add(
    ann: Any, text: str, where: str, annotations: Annotations, file: str, tally: Tally
) -> None:
    """Add an entity or a relation; count other annotations and what is left out of these."""
    kind = field(ann, "_class_name", where, str).rpartition(".")[2]
    if kind not in ("Entity", "Relation"):
        tally.add(file, ATTRIBUTES, len(_attributes(ann)))
        tally.add(file, _SEGMENTS if kind == "Segment" else f"annotations of the class {kind}")
        return
    score, nb_attributes = _score(ann)
    tally.add(file, ATTRIBUTES, nb_attributes)
    label = field(ann, "label", where, str)
    if kind == "Relation":
        head = field(ann, "source_id", where, str)
        annotations.add_relation(label, head, field(ann, "target_id", where, str), score)
        return
    uid = field(ann, "uid", where, str, default="") or None
    place = _place(ann, label, text, where)
    if place is None:
        tally.add(file, _INSERTED)
        annotations.leave_out(uid)
    else:
        annotations.add_entity(uid, Entity(label, *place, score))


def _place(ann: Any, label: str, text: str, where: str) -> tuple[int, int] | None:
    """Return start and end of an entity, or None if no part of it is in the text."""
    fragments, is_original = _fragments(ann, label, text, where)
    covered = "".join(text[start:end] for start, end in fragments)
    if is_original and covered != field(ann, "text", where, str):
        msg = f"{where}: found the text {ann['text']!r}, expected {covered!r}, at its offsets"
        raise ValueError(msg)
    merged = merge_fragments([(start, end) for start, end in fragments if start < end], text)
    return (merged[0][0], merged[-1][1]) if merged else None


def _fragments(ann: Any, label: str, text: str, where: str) -> tuple[list[tuple[int, int]], bool]:
    """Return the original spans of an entity, and whether its text is unchanged."""
    fragments, is_original = [], True
    for span in field(ann, "spans", where, list):
        # A ModifiedSpan is text that replaces some of the original.
        if isinstance(span, dict) and "replaced_spans" in span:
            is_original = False
            replaced = field(span, "replaced_spans", where, list)
        else:
            replaced = [span]
        for piece in replaced:
            start, end = field(piece, "start", where, int), field(piece, "end", where, int)
            if not 0 <= start <= end <= len(text):
                msg = f"{where}: found {label} at {start} to {end}, expected it in 0 to {len(text)}"
                raise ValueError(msg)
            fragments.append((start, end))
    return fragments, is_original
