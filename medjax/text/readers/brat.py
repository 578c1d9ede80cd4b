"""Read BRAT standoff: text files, each with a file of annotations by character offsets.

The format is described at https://brat.nlplab.org/standoff.html (Stenetorp et al. 2012).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medjax.text.document import Document, Entity
from medjax.text.readers._annotations import Annotations
from medjax.text.readers._brat_offsets import TextBound, locate
from medjax.text.readers._brat_relations import add_relations
from medjax.text.readers._dropped import (
    ATTRIBUTES,
    DISCONTINUOUS,
    LOGGER,
    OVERLAPPING,
    UNCLEAR_RELATIONS,
    Dropped,
    Tally,
    some_of,
)
from medjax.text.readers._files import (
    BYTE_ORDER_MARK,
    Texts,
    merge_fragments,
    visible_files,
)

__all__ = ["BratCorpus", "has_annotations", "read_brat"]

_SUFFIX = ".ann"
# Numbers of more digits are not offsets, and Python refuses to convert thousands of digits.
_TEXT_BOUND = re.compile(
    r"(?P<id>T\S*)\t(?P<label>\S+) "
    r"(?P<fragments>[0-9]{1,12} [0-9]{1,12}(?:;[0-9]{1,12} [0-9]{1,12})*)\t(?P<text>.*)"
)
_KINDS = {
    "R": UNCLEAR_RELATIONS,
    "*": UNCLEAR_RELATIONS,
    "E": "events",
    "A": ATTRIBUTES,
    "M": ATTRIBUTES,
    "#": "notes and normalisations",
    "N": "notes and normalisations",
}
_LINKS = ("R", "*", "E")
_UNKNOWN = "lines of unknown kind"
_NOT_ANNOTATED = "texts without an .ann file"
_OTHER_LINE = re.compile(r"(\*|[RAMEN#]\S*)\t.*")


class BratCorpus(NamedTuple):
    """Documents read from BRAT, and what was left out of them.

    Attributes
    ----------
    documents : list of Document
        One document per pair of files, sorted by path. Its name is the path in the folder without
        suffix, such as ``"ward1/a"``.
    nb_dropped : int
        Number of entities left out because they overlap a longer one.
    nb_shortened : int
        Number of discontinuous entities reduced to their longest fragment.
    dropped : list of Dropped
        Everything that was left out, by file and kind: those entities and relations of them,
        relations and events that lack an entity, attributes, notes and normalisations, other lines,
        and texts without annotations.

    Examples
    --------
    >>> BratCorpus([Document("No fever.")], nb_dropped=0, nb_shortened=0, dropped=[])
    BratCorpus(1 documents, nb_dropped=0, nb_shortened=0, dropped=0 kinds in files)
    """

    documents: list[Document]
    nb_dropped: int
    nb_shortened: int
    dropped: list[Dropped]

    def __repr__(self) -> str:
        """Return the sizes, as the lists may be long."""
        return (
            f"{type(self).__name__}({len(self.documents):,} documents, "
            f"nb_dropped={self.nb_dropped}, nb_shortened={self.nb_shortened}, "
            f"dropped={len(self.dropped):,} kinds in files)"
        )


def read_brat(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    encoding: str = "utf-8",
    overlapping: bool = False,
) -> BratCorpus:
    r"""Read entities and relations from BRAT standoff files.

    A discontinuous entity is reduced to its longest fragment, where fragments separated only by
    white space count as one (BRAT itself splits an entity at a line break). Then the longest of
    overlapping entities is kept, unless `overlapping`.

    A relation (``R`` line) goes from its first argument to its second. An event (``E`` line) gives
    a relation from its trigger to each argument, labelled with the role; an argument that is an
    event stands for its trigger, and events of one trigger are not told apart. An equivalence
    (``*`` line) gives a relation from each of its entities to each later one. Relations of entities
    that are left out are left out, too. A warning to the logger ``medjax`` says what was left out.

    Offsets count the characters of the text, including line ends. If this does not fit the ``T``
    lines of a file, but another convention fits all of them, it is used and a warning says so:
    counting CR LF as one character, the byte order mark, UTF-16 code units or bytes.

    Parameters
    ----------
    source : path or iterable of paths
        A folder, of which all ``.ann`` files are read, including those in subfolders, or such
        files. In a folder, names that start with a full stop are ignored.
    encoding : str
        Encoding of the files. A byte order mark is not part of the text; line ends are unchanged.
    overlapping : bool
        Keep all entities, sorted by start, end and label.

    Returns
    -------
    BratCorpus
        The documents and what was left out of them.

    Raises
    ------
    ValueError
        If there is no ``.ann`` file, the text of one is missing, a file is not in the encoding, a
        ``T`` line is malformed, or its offsets are outside the text or do not match its text.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "note.txt").write_text("No fever.")
    ...     _ = Path(folder, "note.ann").write_text("T1\tSign 3 8\tfever\n")
    ...     read_brat(folder).documents[0].entities
    (Entity(label='Sign', start=3, end=8, score=None),)
    """
    tally = Tally()
    unusual: dict[str, list[Path]] = {}
    with Texts(encoding) as texts:
        documents = [
            _document(ann, name, texts, tally, unusual, overlapping=overlapping)
            for ann, name in _named(source, tally)
        ]
    for unit, files in unusual.items():
        LOGGER.warning(
            "BRAT: the offsets count %s in some files: %d (%s)", unit, len(files), some_of(files)
        )
    tally.warn("BRAT")
    return BratCorpus(
        documents, tally.total(OVERLAPPING), tally.total(DISCONTINUOUS), tally.dropped()
    )


def _document(
    ann: Path,
    name: str,
    texts: Texts,
    tally: Tally,
    unusual: dict[str, list[Path]],
    *,
    overlapping: bool,
) -> Document:
    raw = texts.raw(_text_file(ann))
    text = raw.lstrip(BYTE_ORDER_MARK)
    annotations = Annotations(str(ann), tally)
    lines, links = _sorted_lines(_lines(texts.read(ann)), ann, tally)
    positions, convention = locate(lines, raw)
    if convention.is_unusual:
        unusual.setdefault(str(convention), []).append(ann)
    for line, fragments in zip(lines, positions, strict=True):
        merged = merge_fragments(fragments, text)
        tally.add(str(ann), DISCONTINUOUS, len(merged) > 1)
        start, end = max(merged, key=lambda fragment: fragment[1] - fragment[0])
        annotations.add_entity(line.identifier, Entity(line.label, start, end))
    for malformed in add_relations(links, annotations):
        tally.add(str(ann), _KINDS[malformed[0]])
    return annotations.document(text, name, overlapping=overlapping)


def has_annotations(folder: Path) -> bool:
    """Return whether there is an ``.ann`` file in a folder or its subfolders."""
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
        content = others or "no .ann file"
        msg = f"{source}: found {content}, expected .ann files, each next to its .txt file"
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
        f"{ann}:1: found no {ann.with_suffix('.txt').name}, expected the annotated text next to "
        "the annotations"
    )
    raise ValueError(msg)


def _lines(text: str) -> list[str]:
    # Not split at every carriage return, as BRAT copies those within entities.
    if "\n" in text:
        return [line.removesuffix("\r") for line in text.split("\n")]
    return re.split(r"\r(?=\r|\S+\t|$)", text)


def _sorted_lines(lines: list[str], ann: Path, tally: Tally) -> tuple[list[TextBound], list[str]]:
    """Return the ``T`` lines and those that link entities, and count the others."""
    text_bound, links = [], []
    for number, line in enumerate(lines, start=1):
        if line.startswith("T"):
            text_bound.append(_parse(line, f"{ann}:{number}"))
        elif _OTHER_LINE.fullmatch(line):
            if line[0] in _LINKS:
                links.append(line)
            else:
                tally.add(str(ann), _KINDS[line[0]])
        elif line.strip():
            tally.add(str(ann), _UNKNOWN)
    return text_bound, links


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
    return TextBound(match["id"], match["label"], fragments, match["text"], where)
