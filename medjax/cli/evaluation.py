"""Score a trained component as it is loaded from its folder."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

from medjax.cli.arguments import cache_of
from medjax.cli.reading import check_annotated, check_one_part, read_annotated, unit_of
from medjax.cli.tasks import Task
from medjax.components import RelationClassification, TextClassification, load_component
from medjax.config import Options
from medjax.metrics import Interval
from medjax.recipes import (
    SPLITS,
    Report,
    parts_in,
    redo_split,
    refuse_trained_texts,
    report_entities,
    report_relations,
    report_texts,
    run_of,
)
from medjax.runtime.compilation_cache import cached

__all__ = ["checked_threshold", "evaluate_model", "numbers_of"]


def evaluate_model(arguments: argparse.Namespace) -> Report:
    """Return the scores of a model on annotated data.

    Parameters
    ----------
    arguments : argparse.Namespace
        Those of ``python -m medjax evaluate``.

    Raises
    ------
    ValueError
        If model or data cannot be read, or do not fit each other.
    """
    if arguments.split is None:
        check_one_part(arguments.data)
    component, variables = load_component(arguments.model, max_length=arguments.max_length)
    options = Options(precision=arguments.precision)
    chosen: dict[str, Any] = {"batch_size": arguments.batch_size, "options": options}
    threshold = checked_threshold(component, arguments.threshold)
    with cached(cache_of(arguments)):
        if isinstance(component, TextClassification):
            texts = _items(arguments, "documents")
            return report_texts(component, variables, texts, threshold=threshold, **chosen)
        if isinstance(component, RelationClassification):
            notes = _items(arguments, "relations")
            return report_relations(component, variables, notes, **chosen)
        documents = _items(arguments, "entities")
        unit = unit_of(arguments.data, arguments, arguments.split)
        return report_entities(component, variables, documents, unit=unit, **chosen)


def _items(arguments: argparse.Namespace, task: Task) -> list[Any]:
    """Return what to score the model on, which is not all that it was trained on."""
    data, split, run = arguments.data, arguments.split, run_of(arguments.model)
    if run is None or (split is not None and not _is_one_corpus(data, split)):
        return read_annotated(data, task, arguments, split=split)
    items = read_annotated(data, task, arguments)
    if split is None:
        refuse_trained_texts(str(data), items, run)
        return items
    part = redo_split(str(data), items, run, split)
    check_annotated(f"{data}: {split}", task, part)
    return part


def _is_one_corpus(path: Path, split: str) -> bool:
    """Return whether a part of the data can only be one that a run has split off."""
    if split not in itertools.chain.from_iterable(SPLITS.values()):
        return False
    if not path.is_dir():
        return path.exists()
    return any(path.rglob("*.ann")) and not parts_in(path)


def checked_threshold(component: object, asked: float | None) -> float | None:
    """Return the least probability of a class that is asked for, if any.

    Raises
    ------
    ValueError
        If the model has no use for one.
    """
    if asked is not None and not getattr(component, "is_multi_label", False):
        msg = f"--threshold is {asked}; the model does not give texts several classes, leave it out"
        raise ValueError(msg)
    return asked


def numbers_of(report: Report) -> dict[str, Any]:
    """Return the numbers of a report: a value for each score and, if it has one, its interval."""
    scores = {
        name: score._asdict() if isinstance(score, Interval) else {"value": score}
        for name, score in report.scores.items()
    }
    return {"loss": report.loss, "scores": scores}
