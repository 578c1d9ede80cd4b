"""Annotated data for a task, in any format that has a reader."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.cli.tasks import ANNOTATIONS, Task
from medjax.recipes import find_split
from medjax.text import Document, LabelledText, split_sentences
from medjax.text.readers import format_of, read_dataset, read_documents, read_texts

__all__ = ["check_annotated", "read_annotated"]

_DATASET, _UTF_8 = "dataset", "utf-8"


def read_annotated(
    path: Path,
    task: Task,
    arguments: argparse.Namespace,
    *,
    split: str | None = None,
    overlapping: bool = False,
) -> list[Any]:
    """Return the annotated items of a corpus.

    Parameters
    ----------
    path : Path
        A file or folder that `medjax.text.readers` reads.
    task : {"entities", "documents", "relations"}
        What is annotated: `LabelledText` items for documents, otherwise `Document` items.
    arguments : argparse.Namespace
        Those of `medjax.cli.arguments.add_reading`.
    split : str, optional
        Part of a folder or dataset to read.
    overlapping : bool
        Whether entities may overlap; those of relations always may.

    Raises
    ------
    ValueError
        If the data cannot be read, there is no such split, or nothing is annotated.
    FileNotFoundError
        If they are not there.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    found = find_split(path, split) if split is not None and path.is_dir() else None
    if found is not None:
        path, split = found, None
    if task == "documents":
        items: list[Any] = _texts(path, split, arguments)
    else:
        items = _documents(path, task, split, arguments, overlapping=overlapping)
    check_annotated(str(path), task, items)
    return items


def _texts(path: Path, split: str | None, arguments: argparse.Namespace) -> list[LabelledText]:
    return read_texts(
        path,
        split=split,
        text=arguments.text,
        label=arguments.label,
        group=arguments.group,
        separator=arguments.separator,
        encoding=arguments.encoding or _UTF_8,
        format=arguments.input_format,
    )


def _documents(
    path: Path,
    task: Task,
    split: str | None,
    arguments: argparse.Namespace,
    *,
    overlapping: bool,
) -> list[Document]:
    overlapping = overlapping or task == "relations"
    kind = arguments.input_format or format_of(path)
    if kind == _DATASET:
        documents = read_dataset(
            path, split=split, overlapping=overlapping, encoding=arguments.encoding or _UTF_8
        )
    elif split is not None:
        msg = f"--split is {split!r}, but {path} has no such file, folder or part; leave it out"
        raise ValueError(msg)
    else:
        documents = read_documents(
            path, arguments.encoding, overlapping=overlapping, format=arguments.input_format
        )
    if task == "entities" and arguments.sentences and kind != "conll":
        # Relations are of no use to a tagger, so those that sentences cut are not worth a warning.
        bare = [document._replace(relations=()) for document in documents]
        return [sentence for document in bare for sentence in split_sentences(document)]
    return documents


def check_annotated(where: str, task: Task, items: Sequence[Any]) -> None:
    """Raise ValueError unless an item is annotated: scores of none would say nothing.

    Parameters
    ----------
    where : str
        What the message calls the items.
    task : {"entities", "documents", "relations"}
        What is to be annotated.
    items : sequence
        `LabelledText` or `Document` items.
    """
    attribute, name = ANNOTATIONS[task]
    if any(getattr(item, attribute) for item in items):
        return
    msg = f"{where} has {len(items)} items without a single {name}; expected annotated data"
    raise ValueError(msg)
