"""Predict notes, chunk by chunk."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from medjax.callbacks.bars import fitting
from medjax.checkpoint.errors import CheckpointError
from medjax.checkpoint.lock import FolderLock
from medjax.cli.arguments import cache_of
from medjax.cli.evaluation import checked_threshold
from medjax.cli.notes import Note, Notes, find_notes
from medjax.cli.outputs import BratOutput, FileOutput, Output, Predicted, Skipped, claim
from medjax.component import Variables
from medjax.components import (
    ReadyComponent,
    RelationClassification,
    TextClassification,
    load_component,
)
from medjax.config import Options
from medjax.models import resolve_model
from medjax.runtime import keep_memory
from medjax.runtime.compilation_cache import cached
from medjax.text import Document
from medjax.text.writers.brat import check_labels
from medjax.text.writers.doccano import DOCCANO_RECORDS, LINKED_DOCCANO_RECORDS
from medjax.text.writers.medkit_json import MEDKIT_RECORDS
from medjax.text.writers.records import RecordFormat, Written
from medjax.text.writers.tables import ENTITY_RECORDS, RELATION_RECORDS, as_csv

__all__ = ["Done", "predict_notes"]

_CHUNK_NOTES, _CHUNK_CHARACTERS = 256, 1 << 20
"""Notes are read until there are as many, or they have as many characters."""

_COLUMNS = ("document", "labels")  # of a table of classes, before a column for each class

_WEIGHTS = ("config.json", "tokenizer*.json", "*.safetensors")

Predict = Callable[[Sequence[Document]], list[Predicted]]


class Done(NamedTuple):
    """What a start of the command has done.

    Attributes
    ----------
    nb_predicted, nb_complete : int
        Number of notes that it has written, and that were there.
    skipped : Skipped
        Notes that could not be read.
    """

    nb_predicted: int
    nb_complete: int
    skipped: Skipped


def predict_notes(arguments: argparse.Namespace) -> Done:
    """Predict the notes that are not there yet; see `medjax.cli.predict`.

    Raises
    ------
    ValueError, OSError
        If the model, the notes or the folder cannot be used.
    """
    with keep_memory(), cached(cache_of(arguments)):
        notes = find_notes(arguments.input, arguments.input_format)
        _refuse_output_among(arguments.input, arguments.output)
        component, variables = load_component(arguments.model, max_length=arguments.max_length)
        chosen = _format_of(component, arguments.format)
        if isinstance(component, TextClassification) and chosen == "csv":
            _refuse_unclear_columns(component)
        threshold = checked_threshold(component, arguments.threshold)
        with _locked(arguments.output):
            settings = {
                "component": type(component).__name__,
                "model": _digest(resolve_model(arguments.model)),
                "max_length": component.max_length,
                "format": chosen,
                "precision": arguments.precision,
                "threshold": threshold,
            }
            claim(arguments.output, settings)
            predict = _predictor(component, variables, arguments, threshold)
            with_entities = isinstance(component, RelationClassification)
            output = _output(component, chosen, arguments.output, notes)
            with contextlib.closing(output):
                return _run(notes, output, predict, with_entities=with_entities)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Refuse a folder that another start is writing to."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FolderLock(folder)
    try:
        lock.acquire()
    except CheckpointError as error:
        msg = f"another process writes to {folder} ({error}); wait for it, or use another folder"
        raise ValueError(msg) from error
    try:
        yield
    finally:
        lock.release()


def _run(notes: Notes, output: Output, predict: Predict, *, with_entities: bool) -> Done:
    nb_predicted = 0
    remaining = output.remaining(notes)
    settings = {"total": len(notes), "initial": output.nb_passed, **fitting(sys.stderr)}
    with tqdm(unit="note", disable=None, **settings) as bar:
        while chunk := _read_chunk(remaining, output, with_entities=with_entities):
            read, found = chunk
            for (place, _), predicted in zip(found, predict([d for _, d in found]), strict=True):
                output.write(place, predicted)
            output.commit(read)
            nb_predicted += len(found)
            bar.update(len(read))
    return Done(nb_predicted, output.nb_complete, output.skipped)


def _read_chunk(
    remaining: Iterator[Note], output: Output, *, with_entities: bool
) -> tuple[list[Note], list[tuple[Path, Document]]] | None:
    """Return the next notes, and of those to predict, place and document; None at the end."""
    read: list[Note] = []
    found: list[tuple[Path, Document]] = []
    nb_characters = 0
    for note in remaining:
        read.append(note)
        try:
            document = note.read(with_entities=with_entities)
            place = output.place_for(document)
        except (ValueError, OSError) as error:
            output.skipped.add(note, error)
        else:
            nb_characters += len(document.text)
            if place is not None:
                found.append((place, document))
        if len(read) >= _CHUNK_NOTES or nb_characters >= _CHUNK_CHARACTERS:
            break
    return (read, found) if read else None


def _predictor(
    component: ReadyComponent,
    variables: Variables,
    arguments: argparse.Namespace,
    threshold: float | None,
) -> Predict:
    chosen: dict[str, Any] = {
        "batch_size": arguments.batch_size,
        "options": Options(precision=arguments.precision),
    }
    if isinstance(component, TextClassification):
        if threshold is not None:
            chosen["threshold"] = threshold
        classify = component.predictor(variables, **chosen)
        return lambda documents: [
            Predicted(document, classes)
            for document, classes in zip(documents, classify(_texts(documents)), strict=True)
        ]
    if isinstance(component, RelationClassification):
        relate = component.predictor(variables, **chosen)
        return lambda documents: [
            Predicted(document._replace(relations=relations))
            for document, relations in zip(documents, relate(documents), strict=True)
        ]
    tag = component.predictor(variables, **chosen)
    return lambda documents: [
        Predicted(document._replace(entities=entities))
        for document, entities in zip(documents, tag(_texts(documents)), strict=True)
    ]


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.text for document in documents]


def _output(component: ReadyComponent, chosen: str, folder: Path, notes: Notes) -> Output:
    if isinstance(component, TextClassification):
        header, record = _class_records(component.labels)[chosen]
        return FileOutput(folder, f"predictions.{chosen}", header, record, with_entities=False)
    are_relations = isinstance(component, RelationClassification)
    if chosen == "brat":
        check_labels(component.labels, "--format brat")
        return BratOutput(folder, are_files=notes.are_files, keeps_entities=are_relations)
    formats: dict[str, tuple[str, RecordFormat]] = {
        "jsonl": ("jsonl", MEDKIT_RECORDS),
        "doccano": ("jsonl", LINKED_DOCCANO_RECORDS if are_relations else DOCCANO_RECORDS),
        "csv": ("csv", RELATION_RECORDS if are_relations else ENTITY_RECORDS),
    }
    suffix, records = formats[chosen]
    return FileOutput(
        folder,
        f"predictions.{suffix}",
        records.header,
        lambda predicted, written: records.record(predicted.document, written),
        with_entities=are_relations,
    )


def _class_records(
    labels: Sequence[str],
) -> dict[str, tuple[str, Callable[[Predicted, Written], str]]]:
    """Return header and record of each format for classes of texts."""

    def as_row(predicted: Predicted, written: Written) -> str:
        del written
        found = predicted.classes
        assert found is not None
        return as_csv(
            [(predicted.document.name, ";".join(found.labels), *found.probabilities.values())]
        )

    def as_line(predicted: Predicted, written: Written) -> str:
        del written
        found = predicted.classes
        assert found is not None
        record = {"name": predicted.document.name, **found._asdict()}
        return f"{json.dumps(record, ensure_ascii=False)}\n"

    return {"csv": (as_csv([(*_COLUMNS, *labels)]), as_row), "jsonl": ("", as_line)}


def _refuse_unclear_columns(component: TextClassification) -> None:
    """Raise ValueError if the names of classes make a table of their probabilities ambiguous."""
    unclear = [each for each in component.labels if ";" in each and component.is_multi_label]
    if unclear:
        msg = (
            f"--format csv separates the classes of a text by ';', which is in {unclear}; "
            "expected other names, or --format jsonl"
        )
        raise ValueError(msg)
    if twice := [each for each in component.labels if each in _COLUMNS]:
        msg = (
            f"--format csv has the columns {' and '.join(map(repr, _COLUMNS))} and one for each "
            f"class, and there are classes called {twice}; expected other names, or --format jsonl"
        )
        raise ValueError(msg)


def _format_of(component: ReadyComponent, asked: str | None) -> str:
    if not isinstance(component, TextClassification):
        return asked or "brat"
    if asked not in (None, "csv", "jsonl"):
        msg = f"--format is {asked}; expected csv or jsonl for a model that classifies texts"
        raise ValueError(msg)
    return asked or "csv"


def _refuse_output_among(notes: Path, output: Path) -> None:
    source, target = notes.resolve(), output.resolve()
    if source == target or source in target.parents:
        msg = f"--output {output} is in the folder of the notes; use one outside of {notes}"
        raise ValueError(msg)


def _digest(folder: Path) -> str:
    """Return what tells a model from others."""
    digest = hashlib.sha256()
    for file in sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
