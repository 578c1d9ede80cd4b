"""Read spaCy's DocBin, the binary files on which spaCy trains."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from medjax.text.document import Document, Entity
from medjax.text.readers._dropped import Tally
from medjax.text.readers._linked import linked_document

__all__ = ["read_docbin"]

UNLABELLED = "spans without a label"
EMPTY = "spans without text"


def read_docbin(
    path: str | os.PathLike[str], *, span_group: str | None = None, overlapping: bool = False
) -> list[Document]:
    """Read the entities of the documents that spaCy has saved, for instance as ``train.spacy``.

    Needs spaCy, but no model of it. The format has no relations.

    Parameters
    ----------
    path : path
        File to read.
    span_group : str, optional
        Name of a group of spans that are the entities, as spancat is trained on, such as ``"sc"``;
        they may overlap. By default the named entities (``doc.ents``) are read.
    overlapping : bool
        Whether entities that overlap are kept. By default the longest of them is, and a warning to
        the logger ``medjax`` says how many were left out.

    Returns
    -------
    list of Document
        The documents, named after their file and number, from 1.

    Raises
    ------
    ImportError
        If spaCy is not installed.
    ValueError
        If the file is not a DocBin, or no document has the group of spans.
    """
    path, tally = Path(path), Tally()
    documents = []
    groups: dict[str, None] = {}
    docs = _docs(path)
    for number, doc in enumerate(docs, start=1):
        groups |= dict.fromkeys(doc.spans)
        spans = doc.ents if span_group is None else doc.spans.get(span_group, ())
        entities = [_entity(span, str(path), tally) for span in spans]
        documents.append(
            linked_document(
                doc.text,
                [entity for entity in entities if entity is not None],
                (),
                f"{path.name}:{number}",
                overlapping=overlapping,
                file=str(path),
                tally=tally,
            )
        )
    if span_group is not None and docs and span_group not in groups:
        msg = (
            f"{path}: found the groups of spans {[*groups]}, expected {span_group!r}; pass one of "
            "them as span_group, or none to read the named entities"
        )
        raise ValueError(msg)
    tally.warn("DocBin")
    return documents


def _docs(path: Path) -> list[Any]:
    try:
        from spacy.tokens import DocBin
        from spacy.vocab import Vocab
    except ImportError as error:
        msg = f'{path} is read by spaCy, which is not installed; pip install "medjax[spacy]"'
        raise ImportError(msg) from error
    content = path.read_bytes()
    try:
        return list(DocBin().from_bytes(content).get_docs(Vocab()))
    except Exception as error:  # of zlib, msgpack, numpy and spaCy, as the content may be anything
        msg = (
            f"{path}: found a file that spaCy does not read ({type(error).__name__}: "
            f"{error!s:.120}), expected a DocBin of spaCy 3; save it with DocBin.to_disk"
        )
        raise ValueError(msg) from error


def _entity(span: Any, file: str, tally: Tally) -> Entity | None:
    if not span.label_:
        tally.add(file, UNLABELLED)
        return None
    if span.start_char >= span.end_char:
        tally.add(file, EMPTY)
        return None
    return Entity(span.label_, span.start_char, span.end_char)
