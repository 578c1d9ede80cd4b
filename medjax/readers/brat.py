"""BRAT standoff: a text file and, beside it, a file of annotations with character offsets.

The format: https://brat.nlplab.org/standoff.html (Stenetorp et al. 2012).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medjax.readers._brat_offsets import TextBound, locate
from medjax.readers._dropped import (
    ATTRIBUTES,
    DISCONTINUOUS,
    LOGGER,
    OVERLAPPING,
    RELATIONS,
    Dropped,
    Tally,
    some_of,
)
from medjax.readers._files import (
    BYTE_ORDER_MARK,
    Texts,
    build_document,
    merge_fragments,
    visible_files,
)
from medjax.text import Document, Entity

_SUFFIX = ".ann"
# More digits are no offset, and Python refuses to read thousands of them.
_TEXT_BOUND = re.compile(
    r"T\S*\t(?P<label>\S+) (?P<fragments>[0-9]{1,12} [0-9]{1,12}(?:;[0-9]{1,12} [0-9]{1,12})*)"
    r"\t(?P<text>.*)"
)
_KINDS = {
    "R": RELATIONS,
    "*": RELATIONS,
    "A": ATTRIBUTES,
    "M": ATTRIBUTES,
    "E": "events",
    "#": "notes and normalisations",
    "N": "notes and normalisations",
}
_UNKNOWN = "lines of no known kind"
_NOT_ANNOTATED = "texts without an .ann file"
_OTHER_LINE = re.compile(r"(\*|[RAMEN#]\S*)\t.*")


class BratCorpus(NamedTuple):
    """Documents read from BRAT, and what of them could not be kept.

    Attributes
    ----------
    documents : list of Document
        One document a pair of files, sorted by path and named by the path in the folder without
        suffix, such as ``"ward1/a"``.
    nb_dropped : int
        Entities left out because they overlap a longer one.
    nb_shortened : int
        Discontinuous entities of which only the longest fragment is kept.
    dropped : list of Dropped
        All that was left out, by file and kind: those entities, relations, attributes, events,
        notes and normalisations, lines that are none of these, texts without annotations.
    """

    documents: list[Document]
    nb_dropped: int
    nb_shortened: int
    dropped: list[Dropped]


def read_brat(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, encoding: str = "utf-8"
) -> BratCorpus:
    """Read entities from BRAT standoff files.

    Only text-bound annotations (``T`` lines) are read. Token classification knows neither
    discontinuous nor overlapping entities. First, a discontinuous one is cut down to its longest
    fragment, fragments with only white space between them counting as one (BRAT itself cuts an
    entity at a line break). Then the longest of overlapping ones is kept. A warning of the logger
    ``medjax`` says what was left out.

    Offsets count characters of the text as it is, line ends included. Where the ``T`` lines of a
    file do not agree with that, but all agree if CR LF is one character, the byte order mark is
    counted, or UTF-16 code units or bytes are, they are read so and a warning says it.

    Parameters
    ----------
    source : path or iterable of paths
        A folder, of which all ``.ann`` files are read, those in folders within it too, or such
        files. Names with a full stop in front are passed over in a folder.
    encoding : str
        Encoding of the files; a byte order mark is tolerated and no part of the text. Line ends
        are left as they are.

    Returns
    -------
    BratCorpus
        The documents and what was left out of them.

    Raises
    ------
    ValueError
        If there is no ``.ann`` file, the text of one is missing, a file is not of the encoding, a
        ``T`` line is malformed, or its offsets are outside the text or stand for another text than
        the line gives.
    """
    tally = Tally()
    counted: dict[str, list[Path]] = {}
    with Texts(encoding) as texts:
        documents = [
            _document(ann, name, texts, tally, counted) for ann, name in _named(source, tally)
        ]
    for unit, files in counted.items():
        LOGGER.warning(
            "BRAT: the offsets count %s in some files: %d (%s)", unit, len(files), some_of(files)
        )
    tally.warn("BRAT")
    return BratCorpus(
        documents, tally.total(OVERLAPPING), tally.total(DISCONTINUOUS), tally.dropped()
    )


def _document(
    ann: Path, name: str, texts: Texts, tally: Tally, counted: dict[str, list[Path]]
) -> Document:
    raw = texts.raw(_text_file(ann))
    text = raw.lstrip(BYTE_ORDER_MARK)
    lines = _text_bound(_lines(texts.read(ann)), ann, tally)
    places, convention = locate(lines, raw)
    if convention.is_unusual:
        counted.setdefault(str(convention), []).append(ann)
    entities = []
    for line, fragments in zip(lines, places, strict=True):
        merged = merge_fragments(fragments, text)
        tally.add(str(ann), DISCONTINUOUS, len(merged) > 1)
        start, end = max(merged, key=lambda fragment: fragment[1] - fragment[0])
        entities.append(Entity(line.label, start, end))
    document, nb_overlaps = build_document(text, entities, name)
    tally.add(str(ann), OVERLAPPING, nb_overlaps)
    return document


def has_annotations(folder: Path) -> bool:
    """Whether there is an ``.ann`` file in a folder or a folder in it."""
    return any(_is_ann(file) for file in visible_files(folder))


def _is_ann(file: Path) -> bool:
    return file.suffix.lower() == _SUFFIX


def _named(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], tally: Tally
) -> list[tuple[Path, str]]:
    """Return the ``.ann`` files and the names of their documents."""
    root: Path | None = None
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        files = [path]
        if path.is_dir():
            root, everything = path, visible_files(path)
            files = [file for file in everything if _is_ann(file)]
            annotated = {file.with_suffix("") for file in files}
            for file in everything:
                if (
                    files
                    and file.suffix.lower() == ".txt"
                    and file.with_suffix("") not in annotated
                ):
                    tally.add(str(file), _NOT_ANNOTATED)
    else:
        files = sorted(map(Path, source))
    others = [str(file) for file in files if not _is_ann(file)]
    if others or not files:
        found = others or "no .ann file"
        msg = f"{source}: found {found}, expected .ann files, each with its .txt beside it"
        raise ValueError(msg)
    if root is None:
        root = Path(os.path.commonpath([file.absolute().parent for file in files]))
        return [(file, _name(file.absolute(), root)) for file in files]
    return [(file, _name(file, root)) for file in files]


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).with_suffix("").as_posix()


def _text_file(ann: Path) -> Path:
    for suffix in (".txt", ".TXT"):
        if ann.with_suffix(suffix).is_file():
            return ann.with_suffix(suffix)
    msg = (
        f"{ann}:1: found no {ann.with_suffix('.txt').name}, expected the annotated text beside the "
        "annotations"
    )
    raise ValueError(msg)


def _lines(text: str) -> list[str]:
    # Not at every carriage return: BRAT writes those of the text within an entity.
    if "\n" in text:
        return [line.removesuffix("\r") for line in text.split("\n")]
    return re.split(r"\r(?=\r|\S+\t|$)", text)


def _text_bound(lines: list[str], ann: Path, tally: Tally) -> list[TextBound]:
    """Return the ``T`` lines and count the others."""
    found = []
    for number, line in enumerate(lines, start=1):
        if line.startswith("T"):
            found.append(_parse(line, f"{ann}:{number}"))
        elif line.strip():
            kind = _KINDS[line[0]] if _OTHER_LINE.fullmatch(line) else _UNKNOWN
            tally.add(str(ann), kind)
    return found


def _parse(line: str, where: str) -> TextBound:
    match = _TEXT_BOUND.fullmatch(line)
    if match is None:
        msg = (
            f"{where}: found {line!r}, expected ID, tab, LABEL START END[;START END...], tab, TEXT"
        )
        raise ValueError(msg)
    fragments = []
    for fragment in match["fragments"].split(";"):
        start, end = map(int, fragment.split(" "))
        fragments.append((start, end))
    return TextBound(match["label"], fragments, match["text"], where)
