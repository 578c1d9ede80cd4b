"""Annotated data for a task, in any format that has a reader."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medjax.cli.arguments import check_task
from medjax.cli.tasks import ANNOTATIONS, Task
from medjax.recipes import find_split, parts_in
from medjax.text import Document, LabelledText, split_sentences
from medjax.text.readers import format_of, read_dataset, read_documents, read_texts
from medjax.text.readers.dataset import has_sentences

__all__ = ["check_annotated", "check_one_part", "read_annotated", "unit_of"]

_CONLL, _DATASET, _UTF_8 = "conll", "dataset", "utf-8"


def read_annotated(
    path: Path,
    task: Task,
    arguments: argparse.Namespace,
    *,
    split: str | None = None,
) -> list[Any]:
    """Return the annotated items of a corpus.

    Entities may overlap: those that a tagger cannot find count as missed.

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

    Raises
    ------
    ValueError
        If the data cannot be read, there is no such split, nothing is annotated, or an argument is
        one of another task.
    FileNotFoundError
        If they are not there.
    """
    check_task(arguments, task)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    path, split = _located(path, split)
    if task == "documents":
        items: list[Any] = _texts(path, split, arguments)
    else:
        items = _documents(path, task, split, arguments)
    check_annotated(str(path), task, items)
    return items


def check_one_part(path: Path) -> None:
    """Raise ValueError if a corpus has parts, one of which a model was trained on.

    Parameters
    ----------
    path : Path
        The data to score a model on, as a whole.
    """
    if path.is_dir() and (parts := parts_in(path)):
        named = ", ".join(part.name for part in parts)
        msg = (
            f"{path} has the parts {named}; expected the one to score on, as a model knows what it "
            "was trained on: --split test, for instance, or the path of that part"
        )
        raise ValueError(msg)


def unit_of(path: Path, arguments: argparse.Namespace, split: str | None = None) -> str:
    """Return what a report on entities calls an item of `read_annotated`.

    Parameters
    ----------
    path, arguments, split
        As for `read_annotated`.

    Returns
    -------
    {"sentence", "document"}
        Files in CoNLL columns and datasets of tokens have sentences, whatever is asked for.
    """
    if arguments.sentences:
        return "sentence"
    path, split = _located(path, split)
    kind = arguments.input_format or format_of(path)
    encoding = arguments.encoding or _UTF_8
    if kind == _CONLL or (kind == _DATASET and has_sentences(path, split=split, encoding=encoding)):
        return "sentence"
    return "document"


def _located(path: Path, split: str | None) -> tuple[Path, str | None]:
    """Return the entry of a folder for a split; otherwise the split is one of the dataset."""
    found = find_split(path, split) if split is not None and path.is_dir() else None
    return (path, split) if found is None else (found, None)


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
    path: Path, task: Task, split: str | None, arguments: argparse.Namespace
) -> list[Document]:
    kind = arguments.input_format or format_of(path)
    if kind == _DATASET:
        documents = read_dataset(
            path, split=split, overlapping=True, encoding=arguments.encoding or _UTF_8
        )
    elif split is not None:
        msg = f"--split is {split!r}, but {path} has no such file, folder or part; leave it out"
        raise ValueError(msg)
    else:
        documents = read_documents(
            path, arguments.encoding, overlapping=True, format=arguments.input_format
        )
    if task == "entities" and arguments.sentences and kind != _CONLL:
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
