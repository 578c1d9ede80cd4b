"""BRAT standoff: a text file and, beside it, a file of annotations with character offsets.

The format: https://brat.nlplab.org/standoff.html (Stenetorp et al. 2012).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from medjax.readers._files import LOGGER, build_document, merge_fragments, read_text
from medjax.text import Document, Entity

_TEXT_BOUND = re.compile(r"T\S*\t(?P<label>\S+) (?P<fragments>\d+ \d+(?:;\d+ \d+)*)\t(?P<text>.*)")


class BratCorpus(NamedTuple):
    """Documents read from BRAT, and what of them could not be kept.

    Attributes
    ----------
    documents : list of Document
        One document a pair of files, sorted by path and named by the file without its suffix.
    nb_dropped : int
        Entities left out because they overlap a longer one.
    nb_shortened : int
        Discontinuous entities of which only the longest fragment is kept.
    """

    documents: list[Document]
    nb_dropped: int
    nb_shortened: int


def read_brat(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], *, encoding: str = "utf-8"
) -> BratCorpus:
    """Read entities from BRAT standoff files.

    Only text-bound annotations (``T`` lines) are read. Token classification knows neither
    discontinuous nor overlapping entities. First, a discontinuous one is cut down to its longest
    fragment, fragments with only white space between them counting as one (BRAT itself cuts an
    entity at a line break). Then the longest of overlapping ones is kept. A warning of the logger
    ``medjax`` says how many were shortened or dropped.

    Parameters
    ----------
    source : path or iterable of paths
        A folder, of which all ``.ann`` files are read, or such files.
    encoding : str
        Encoding of the files. Offsets count in characters and line ends are left as they are.

    Returns
    -------
    BratCorpus
        The documents and the two counts.

    Raises
    ------
    ValueError
        If there is no ``.ann`` file, the text of one is missing, a ``T`` line is malformed, or its
        offsets are outside the text or stand for another text than the line gives.
    """
    documents, nb_dropped, nb_shortened = [], 0, 0
    for ann in _ann_files(source):
        text = _text_of(ann, encoding)
        entities = []
        lines = read_text(ann, encoding).split("\n")
        for number, line in enumerate(lines, start=1):
            if line.startswith("T"):
                entity, shortened = _entity(line, text, f"{ann}:{number}")
                entities.append(entity)
                nb_shortened += shortened
        document, nb_overlaps = build_document(text, entities, ann.stem)
        documents.append(document)
        nb_dropped += nb_overlaps
    if nb_dropped or nb_shortened:
        LOGGER.warning(
            "BRAT: %d entities dropped for overlapping a longer one, %d discontinuous ones cut to "
            "their longest fragment",
            nb_dropped,
            nb_shortened,
        )
    return BratCorpus(documents, nb_dropped, nb_shortened)


def _ann_files(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        files = sorted(path.glob("*.ann")) if path.is_dir() else [path]
    else:
        files = sorted(map(Path, source))
    if not files or any(file.suffix != ".ann" for file in files):
        found = [str(file) for file in files if file.suffix != ".ann"] or "no .ann file"
        msg = f"{source}: found {found}, expected .ann files, each with its .txt beside it"
        raise ValueError(msg)
    return files


def _text_of(ann: Path, encoding: str) -> str:
    path = ann.with_suffix(".txt")
    if not path.is_file():
        msg = f"{ann}:1: found no {path.name}, expected the annotated text beside the annotations"
        raise ValueError(msg)
    return read_text(path, encoding, newline="")


def _entity(line: str, text: str, where: str) -> tuple[Entity, bool]:
    match = _TEXT_BOUND.fullmatch(line)
    if match is None:
        msg = (
            f"{where}: found {line!r}, expected ID, tab, LABEL START END[;START END...], tab, TEXT"
        )
        raise ValueError(msg)
    fragments = []
    for fragment in match["fragments"].split(";"):
        start, end = map(int, fragment.split(" "))
        if not start < end <= len(text):
            msg = f"{where}: found {start} {end}, expected START < END <= {len(text)} (the text)"
            raise ValueError(msg)
        fragments.append((start, end))
    # BRAT writes the fragments with a space between them and line breaks as spaces.
    covered = " ".join(text[start:end] for start, end in fragments)
    if covered.split() != match["text"].split():
        msg = f"{where}: found the text {match['text']!r}, expected {covered!r}, at its offsets"
        raise ValueError(msg)
    merged = merge_fragments(fragments, text)
    start, end = max(merged, key=lambda fragment: fragment[1] - fragment[0])
    return Entity(match["label"], start, end), len(merged) > 1
