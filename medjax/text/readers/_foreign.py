"""Recognise files of other tools, to raise errors that say what they are and what to do.

Each entry of the tables is a name and a remedy, which is another reader where there is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_UNPACK = "unpack it and pass a file or folder from it"
_BCONV = (
    'convert it to BRAT, for instance with the package bconv (fmt="brat" writes the .ann files, '
    'fmt="txt" the texts)'
)
_OWN_TOOL = "export from the tool that wrote it as CoNLL columns or BRAT"
_COLUMNS = "export one token per line with its tag, as CSV or with tabs"
_INCEPTION = (
    'export the layer "Named entity" as "CoNLL 2002" in INCEpTION or WebAnno, or convert to BRAT'
)
_DATASETS = "medjax.text.readers.read_dataset reads its columns"
_ENTITIES = 'medjax.text.readers.read_dataset(file, entities="entities") reads it'
_ARROW = "pass the folder that save_to_disk wrote to medjax.text.readers.read_dataset"
_BIOC = "medjax.text.readers.read_bioc reads it"
_SPACY = (
    "load it with spaCy, convert it with medkit.io.spacy.SpacyInputConverter and save it with "
    "medkit.io.medkit_json.save_text_documents"
)
_PRODIGY = (
    'medjax.text.readers.read_dataset(file, entities="spans") reads the rows that were accepted'
)


class Foreign(NamedTuple):
    """A format that is recognised.

    Attributes
    ----------
    name : str
        Name of the format, with an article if it needs one.
    remedy : str
        What the user can do.
    """

    name: str
    remedy: str


_MAGIC: tuple[tuple[bytes, Foreign], ...] = (
    (b"PAR1", Foreign("a Parquet table", _DATASETS)),
    (b"ARROW1", Foreign("an Arrow table", _ARROW)),
    (b"\xff\xff\xff\xff", Foreign("an Arrow stream", _ARROW)),
    (b"\x1f\x8b", Foreign("a gzip archive", _UNPACK)),
    (b"BZh", Foreign("a bzip2 archive", _UNPACK)),
    (b"\xfd7zXZ", Foreign("an xz archive", _UNPACK)),
    (b"7z\xbc\xaf", Foreign("a 7z archive", _UNPACK)),
    (b"%PDF-", Foreign("a PDF", "pass the annotations of its text instead")),
    (b"\xd0\xcf\x11\xe0", Foreign("an old Excel or Word file", _COLUMNS)),
    (b"SQLite format 3", Foreign("an SQLite database", _COLUMNS)),
)
# Names of parts that identify a zip archive; the names are not compressed.
_ZIPPED: tuple[tuple[bytes, Foreign], ...] = (
    (b"xl/", Foreign("an Excel workbook", _COLUMNS)),
    (b"word/", Foreign("a Word document", _COLUMNS)),
    (b"TypeSystem.xml", Foreign("a UIMA CAS archive", _INCEPTION)),
    (b"", Foreign("a zip archive", _UNPACK)),
)
_XML = re.compile(r"\s*<(\?xml|!DOCTYPE|collection>|xmi:XMI|GateDocument)")
# The first of these that occurs near the top of an XML file identifies it.
_XML_KINDS: tuple[tuple[str, Foreign], ...] = (
    ("xmi:XMI", Foreign("UIMA CAS XMI, as INCEpTION exports it", _INCEPTION)),
    ("GateDocument", Foreign("GATE XML", _OWN_TOOL)),
    ("<collection>", Foreign("BioC XML", _BIOC)),
    ("BioC.dtd", Foreign("BioC XML", _BIOC)),
    ("", Foreign("XML", _OWN_TOOL)),
)
_LINES: tuple[tuple[re.Pattern[str], Foreign], ...] = (
    (
        re.compile(r"\s*\w+\|t\|.*\s+\w+\|a\|"),
        Foreign("PubTator", "medjax.text.readers.read_pubtator reads it"),
    ),
    (re.compile(r"#FORMAT=WebAnno TSV"), Foreign("WebAnno TSV", _INCEPTION)),
)


_TOP = 4000  # number of characters by which XML and lines are recognised


def _has(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: all(name in record for name in names)


def _has_any(*names: str) -> Callable[[dict[str, Any]], bool]:
    return lambda record: any(name in record for name in names)


def _is_label_studio(record: dict[str, Any]) -> bool:
    labels = record.get("label")
    return _has("data", "annotations")(record) or (
        isinstance(labels, list) and bool(labels) and isinstance(labels[0], dict)
    )


def _is_row_of_entities(record: dict[str, Any]) -> bool:
    """Return whether a record has a text and entities as `read_dataset` takes them."""
    entities = record.get("entities")
    first = entities[0] if isinstance(entities, list) and entities else entities
    return "text" in record and isinstance(first, dict) and _has("start", "end", "label")(first)


_RECORDS: tuple[tuple[Callable[[dict[str, Any]], bool], Foreign], ...] = (
    (_has("content_type"), Foreign("medkit JSON", "medjax.text.readers.read_medkit_json reads it")),
    (_has("text", "denotations"), Foreign("PubAnnotation JSON", _BCONV)),
    (_has_any("passages", "documents", "PubTator3"), Foreign("BioC JSON", _BIOC)),
    (_has_any("%TYPES", "%FEATURE_STRUCTURES"), Foreign("UIMA CAS JSON", _INCEPTION)),
    (
        _is_label_studio,
        Foreign("a Label Studio export", "medjax.text.readers.read_label_studio reads it"),
    ),
    (
        _has("tokenized_text", "ner"),
        Foreign(
            "GLiNER training data",
            "write a line with token and tag for each token and a blank line after each sentence",
        ),
    ),
    (_has_any("paragraphs", "ents"), Foreign("spaCy JSON", _SPACY)),
    (
        _has_any("_input_hash", "_task_hash"),
        Foreign("Prodigy JSON", _PRODIGY),
    ),
    (_is_row_of_entities, Foreign("rows of texts and entities", _ENTITIES)),
    (_has("text", "spans"), Foreign("spaCy or Prodigy JSON", f"{_SPACY}; of Prodigy, {_PRODIGY}")),
    (
        lambda record: "text" in record and _has_any("label", "labels", "entities")(record),
        Foreign(
            "a Doccano export",
            "medjax.text.readers.read_doccano reads it, read_texts if the labels are classes",
        ),
    ),
    (_has_any("tokens", "ner_tags"), Foreign("a Hugging Face dataset", _DATASETS)),
)


def refuse_binary(path: Path, content: bytes) -> None:
    """Raise ValueError if the first bytes are those of an archive, a table or a similar file."""
    if content.startswith(b"PK\x03\x04"):
        _refuse(path, next(foreign for part, foreign in _ZIPPED if part in content), "text")
    for magic, foreign in _MAGIC:
        if content.startswith(magic):
            _refuse(path, foreign, "text")


def kind_of_text(text: str) -> Foreign | None:
    """Return the format of a text that begins like XML, PubTator or WebAnno TSV, otherwise None."""
    top = text[:_TOP]
    if _XML.match(top):
        return next(foreign for part, foreign in _XML_KINDS if part in top)
    return next((foreign for pattern, foreign in _LINES if pattern.match(top)), None)


def refuse_other_text(path: Path, text: str, expected: str) -> None:
    """Raise ValueError if a text begins like XML, PubTator or WebAnno TSV.

    Parameters
    ----------
    path : Path
        The file, for the message.
    text : str
        Its content.
    expected : str
        The expected format, which is accepted.
    """
    foreign = kind_of_text(text)
    if foreign is not None and foreign.name != expected:
        _refuse(path, foreign, expected)


def kind_of_json(text: str) -> Foreign | None:
    """Return the format of the first record of JSON or JSON lines, None if it is unknown.

    A record without entities does not tell how they are written; the next one that has some does.
    """
    if not looks_like_json(text):
        return None
    record = _first_record(text)
    if isinstance(record, list) and len(record) == 2 and isinstance(record[1], dict):
        return Foreign("spaCy training data", _SPACY)
    if isinstance(record, dict):
        if record.get("entities") == []:
            record = next((each for each in _records(text) if each.get("entities")), record)
        return next((foreign for matches, foreign in _RECORDS if matches(record)), None)
    return None


def refuse_other_json(path: Path, text: str, expected: str, others: Container[str] = ()) -> None:
    """Raise ValueError if the first record of JSON or JSON lines is that of a known other tool.

    Parameters
    ----------
    path : Path
        The file, for the message.
    text : str
        Its content.
    expected : str
        The expected format, which is accepted.
    others : container of str
        Other formats that are accepted.
    """
    foreign = kind_of_json(text)
    if foreign is not None and foreign.name != expected and foreign.name not in others:
        _refuse(path, foreign, expected)


def looks_like_json(text: str) -> bool:
    """Return whether a text begins like JSON: with a bracket and what may follow it.

    Examples
    --------
    >>> looks_like_json('[{"id": 1}]'), looks_like_json("[ O")
    (True, False)
    """
    return re.match(r'\s*(\{\s*["}]|\[\s*[\[{"\]])', text) is not None


def _first_record(text: str) -> Any:
    """Return the first record of JSON, of a JSON list or of JSON lines; None if there is none."""
    for piece in (re.split(r"[\r\n]", text.strip(), maxsplit=1)[0], text):
        try:
            record = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        is_pair = isinstance(record, list) and bool(record) and isinstance(record[0], str)
        return record[0] if isinstance(record, list) and record and not is_pair else record
    return None


def _records(text: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON list or of JSON lines, as far as they can be read."""
    for piece in [text] if text.lstrip().startswith("[") else text.splitlines():
        try:
            value = json.loads(piece)
        except (ValueError, RecursionError):
            continue
        values = value if isinstance(value, list) else [value]
        yield from (each for each in values if isinstance(each, dict))


def _refuse(path: Path, foreign: Foreign, expected: str) -> None:
    msg = f"{path}: found {foreign.name}, expected {expected}; {foreign.remedy}"
    raise ValueError(msg)
