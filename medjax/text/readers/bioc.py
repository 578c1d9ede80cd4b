"""Read BioC, as XML and as JSON: documents in passages, their annotations and relations.

The format is described at http://bioc.sourceforge.net (Comeau et al. 2013).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from medjax.text.document import Document
from medjax.text.readers._bioc_graph import Graph
from medjax.text.readers._bioc_xml import XmlRecord, parse_bioc_xml
from medjax.text.readers._dropped import Tally
from medjax.text.readers._files import Texts
from medjax.text.readers._foreign import refuse_binary, refuse_other_json, refuse_other_text
from medjax.text.readers._json import field, parse_json_lines
from medjax.text.readers._linked import linked_document
from medjax.text.readers._places import Mark, Places

__all__ = ["read_bioc"]

UNLOCATED = "annotations without a location"
OUTSIDE = "annotations outside the passages"

_JSON = "BioC JSON"


class Block(NamedTuple):
    """A stretch of text that BioC gives with an offset.

    Attributes
    ----------
    text : str
        The text.
    offset : int
        Its start, in the units of the file.
    before : str
        What separates it from the text before.
    annotations : list of (str, any)
        Its annotations and where they are.
    relations : list of (str, any)
        Its relations and where they are.
    """

    text: str
    offset: int
    before: str
    annotations: list[tuple[str, Any]]
    relations: list[tuple[str, Any]]


def read_bioc(
    path: str | os.PathLike[str],
    *,
    label: str = "type",
    overlapping: bool = False,
    encoding: str | None = None,
) -> list[Document]:
    """Read the entities and relations of a BioC collection.

    The text of a document is that of its passages with a line feed between them; a passage without
    text has that of its sentences. So offsets differ from those of the file where it leaves more
    space. Annotations are found by their offset in the passage: in characters or, if this does not
    give the annotated text of all annotations of a passage, in UTF-16 code units or bytes, with a
    warning. A discontinuous annotation is reduced to its longest fragment.

    A relation goes from its first node to its second; roles are left out. A relation without nodes,
    as in the BioCreative V CDR and BioRED corpora, is between the two concepts that its infons name
    (``entity1`` and ``entity2``, or any others but the label): every pair of a mention of the one
    and a mention of the other becomes a relation, as in `read_pubtator`. Relations with more or
    fewer nodes, of relations, or that lose an entity are left out. A warning to the logger
    ``medjax`` says what was left out.

    Parameters
    ----------
    path : path
        A file of XML or JSON: a collection, a list of collections or documents, or a document on
        each line.
    label : str
        Key of the infon with the label of annotations and relations. Relations without it have the
        infon ``relation`` as label or else ``"related"``.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is.
    encoding : str, optional
        Encoding of the file. By default it is the one that the XML declares, UTF-8 for JSON.

    Returns
    -------
    list of Document
        The documents, named after their identifiers.

    Raises
    ------
    ValueError
        If the file is not XML or JSON of this form, the XML declares entities, an annotation lacks
        a label or has another text than there is at its offsets, or a relation refers to an
        annotation that is not there.

    Examples
    --------
    >>> import tempfile
    >>> passage = (
    ...     "<passage><offset>0</offset><text>No fever</text><annotation id='1'>"
    ...     "<infon key='type'>Sign</infon><location offset='3' length='5'/><text>fever</text>"
    ...     "</annotation></passage>")
    >>> xml = f"<collection><document><id>7</id>{passage}</document></collection>"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "notes.xml")
    ...     _ = file.write_text(xml)
    ...     read_bioc(file)[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)

    References
    ----------
    Comeau et al. (2013), BioC: a minimalist approach to interoperability for biomedical text
    processing.
    """
    path, tally = Path(path), Tally()
    places = Places("BioC", tally)
    documents = [
        _document(record, where, path, label, places, tally, overlapping=overlapping)
        for where, record in _records(path, encoding)
    ]
    places.warn()
    tally.warn("BioC")
    return documents


def _records(path: Path, encoding: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the documents and where they are."""
    content = path.read_bytes()
    refuse_binary(path, content)
    if encoding is None and content.lstrip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n").startswith(b"<"):
        text, markup = "", content
    else:
        with Texts(encoding or "utf-8") as texts:
            text, markup = texts.read(path), b""
    if markup or text.lstrip().startswith("<"):
        collections = [(str(path), parse_bioc_xml(text or markup, path))]
    else:
        refuse_other_text(path, text, _JSON)
        refuse_other_json(path, text, _JSON)
        collections = parse_json_lines(text, path, _JSON)
    for where, collection in collections:
        for name in ("documents", "PubTator3"):
            if isinstance(collection, dict) and name in collection:
                records = field(collection, name, where, list)
                break
        else:
            records = [collection]
            if isinstance(collection, XmlRecord):
                records = []  # a collection without documents
        for record in records:
            yield _where(record, where, "document"), record


def _where(record: Any, where: str, kind: str) -> str:
    """Return where a record is: its line in XML, or its place in a larger record with its name."""
    if isinstance(record, XmlRecord):
        return record.where
    name = record.get("id") if isinstance(record, dict) else None
    return where if name is None else f"{where}, {kind} {name}"


def _document(
    record: Any,
    where: str,
    path: Path,
    label: str,
    places: Places,
    tally: Tally,
    *,
    overlapping: bool,
) -> Document:
    file = str(path)
    name = str(field(record, "id", where, str, int))
    graph, text = Graph(label, file, tally), ""
    tally.add(file, OUTSIDE, len(field(record, "annotations", where, list, default=[])))
    for block in _blocks(record, where):
        text += block.before if text else ""
        marks, annotations = [], []
        for at, annotation in block.annotations:
            mark = _mark(annotation, block.offset, label, at)
            if mark is None:
                tally.add(file, UNLOCATED)
                graph.add_lost(annotation)
            else:
                marks.append(mark)
                annotations.append(annotation)
        for annotation, mark, (start, end) in zip(
            annotations, marks, places.find(marks, block.text, file), strict=True
        ):
            graph.add(annotation, mark, len(text) + start, len(text) + end)
        graph.relate_later(block.relations)
        text += block.text
    graph.relate_later(_parts(record, "relations", where, "relation"))
    return linked_document(
        text,
        graph.entities,
        graph.relations(),
        name,
        overlapping=overlapping,
        file=file,
        tally=tally,
    )


def _parts(record: Any, name: str, where: str, kind: str) -> list[tuple[str, Any]]:
    return [
        (_where(part, where, kind), part) for part in field(record, name, where, list, default=[])
    ]


def _blocks(document: Any, where: str) -> Iterator[Block]:
    """Yield the passages of a document, or their sentences where they have no text themselves."""
    for at, passage in _parts(document, "passages", where, "passage"):
        offset = field(passage, "offset", at, int)
        sentences = _parts(passage, "sentences", at, "sentence")
        written = field(passage, "text", at, str, type(None)) or ""
        annotations = _parts(passage, "annotations", at, "annotation")
        relations = _parts(passage, "relations", at, "relation")
        inner = [
            (
                field(sentence, "text", place, str, type(None)) or "",
                field(sentence, "offset", place, int),
                _parts(sentence, "annotations", place, "annotation"),
                _parts(sentence, "relations", place, "relation"),
            )
            for place, sentence in sentences
        ]
        if written or not inner:
            annotations += [annotation for *_, found, _ in inner for annotation in found]
            relations += [relation for *_, found in inner for relation in found]
            yield Block(written, offset, "\n", annotations, relations)
            continue
        if annotations:
            msg = (
                f"{at}: found annotations of a passage without text, expected them in its "
                "sentences, or a text in the passage"
            )
            raise ValueError(msg)
        for number, (text, start, found, links) in enumerate(inner):
            before = " " if number else "\n"
            yield Block(text, start, before, found, links + (relations if number == 0 else []))


def _mark(annotation: Any, offset: int, label: str, where: str) -> Mark | None:
    """Return an annotation with offsets from the start of its block, or None without a location."""
    fragments = []
    for location in field(annotation, "locations", where, list, default=[]):
        start = field(location, "offset", where, int) - offset
        fragments.append((start, start + field(location, "length", where, int)))
    if not fragments:
        return None
    infons = field(annotation, "infons", where, dict)
    if not isinstance(infons.get(label), str) or not infons[label]:
        msg = (
            f"{where}: found the infons {[*infons]!s:.120} of an annotation, expected {label!r} "
            'with its label; pass the key of the infon that has it, as in label="type"'
        )
        raise ValueError(msg)
    covered = field(annotation, "text", where, str, type(None))
    at = f"{where}, from the start of the passage at {offset}"
    return Mark(infons[label], fragments, covered, at)
