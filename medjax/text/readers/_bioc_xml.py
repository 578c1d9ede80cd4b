"""Parse BioC XML into what BioC JSON contains, with the line of each element.

Entities, which can expand to gigabytes or name other files, are refused. The document type is not
read.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

_LISTS = {
    "document": "documents",
    "passage": "passages",
    "sentence": "sentences",
    "annotation": "annotations",
    "relation": "relations",
    "location": "locations",
    "node": "nodes",
}
_TEXTS = ("id", "text", "offset")
_ATTRIBUTES = ("id", "offset", "length", "refid", "role")
_NUMBERS = ("offset", "length")


class XmlRecord(dict[str, Any]):
    """The object that stands for an element, with its file and line."""

    where: str


class _Element(Element):
    line: int


class _EntityError(ValueError):
    pass


def parse_bioc_xml(content: bytes | str, path: Path) -> XmlRecord:
    r"""Return the content of a collection.

    Parameters
    ----------
    content : bytes or str
        Content of the file. The encoding of bytes is the one that the XML declares.
    path : Path
        The file, for messages.

    Raises
    ------
    ValueError
        If it is not well-formed, has another root than a collection, declares an entity, or has
        something else than a number where one belongs.

    Examples
    --------
    >>> parse_bioc_xml("<collection>\n<document><id>7</id></document></collection>", Path("a.xml"))
    {'infons': {}, 'documents': [{'infons': {}, 'id': '7'}]}
    """
    root = _tree(content, path)
    if root.tag != "collection":
        msg = f"{path}:{root.line}: found <{root.tag:.40}>, expected <collection>; pass BioC XML"
        raise ValueError(msg)
    return _record(root, path)


def _tree(content: bytes | str, path: Path) -> _Element:
    parser = expat.ParserCreate()
    parser.buffer_text = True

    def element(tag: str, attributes: dict[str, str]) -> _Element:
        created = _Element(tag, attributes)
        created.line = parser.CurrentLineNumber
        return created

    def refuse(name: str, *_: object) -> None:
        msg = (
            f"{path}:{parser.CurrentLineNumber}: found the entity {name!r:.40}, expected none "
            "beyond &lt; &gt; &amp; &apos; &quot;; write its characters instead"
        )
        raise _EntityError(msg)

    builder = TreeBuilder(element_factory=element)
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    try:
        parser.Parse(content, True)
    except _EntityError:
        raise
    except (expat.ExpatError, LookupError, ValueError) as error:  # the last two of encodings
        line = getattr(error, "lineno", 1)
        raise ValueError(f"{path}:{line}: found {error}, expected well-formed XML") from error
    root = builder.close()
    assert isinstance(root, _Element)
    return root


def _record(element: Element, path: Path) -> XmlRecord:
    """Return an element as the object that stands for it in JSON."""
    assert isinstance(element, _Element)
    record = XmlRecord(infons={})
    record.where = f"{path}:{element.line}"
    record |= {name: element.attrib[name] for name in _ATTRIBUTES if name in element.attrib}
    for child in element:
        assert isinstance(child, _Element)
        if child.tag == "infon":
            record["infons"][child.get("key", "")] = child.text or ""
        elif child.tag in _LISTS:
            record.setdefault(_LISTS[child.tag], []).append(_record(child, path))
        elif child.tag in _TEXTS:
            if len(child) or child.tag in record:
                msg = f"{path}:{child.line}: found elements in <{child.tag}>, or a second one"
                raise ValueError(f"{msg}, expected one with text only")
            record[child.tag] = child.text or ""
    for name in _NUMBERS:
        if name in record:
            if not re.fullmatch(r"\s*[0-9]{1,12}\s*", record[name]):
                msg = f"{path}:{element.line}: found {record[name]!r:.40} as {name}, expected"
                raise ValueError(f"{msg} a whole number")
            record[name] = int(record[name])
    return record
