"""Score a trained component as it is loaded from its folder."""

from __future__ import annotations

import argparse
from typing import Any

from medjax.cli.arguments import cache_of
from medjax.cli.reading import check_one_part, read_annotated, unit_of
from medjax.components import RelationClassification, TextClassification, load_component
from medjax.config import Options
from medjax.metrics import Interval
from medjax.recipes import Report, report_entities, report_relations, report_texts
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
            texts = read_annotated(arguments.data, "documents", arguments, split=arguments.split)
            return report_texts(component, variables, texts, threshold=threshold, **chosen)
        if isinstance(component, RelationClassification):
            notes = read_annotated(arguments.data, "relations", arguments, split=arguments.split)
            return report_relations(component, variables, notes, **chosen)
        documents = read_annotated(arguments.data, "entities", arguments, split=arguments.split)
        unit = unit_of(arguments.data, arguments, arguments.split)
        return report_entities(component, variables, documents, unit=unit, **chosen)


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
