"""Score a trained component as it is loaded from its folder."""

from __future__ import annotations

import argparse
import math
from typing import Any

from medjax.cli.arguments import cache_of
from medjax.cli.reading import read_annotated
from medjax.components import RelationClassification, TextClassification, load_component
from medjax.config import Options
from medjax.metrics import Interval
from medjax.recipes import Report, report_entities, report_relations, report_texts
from medjax.runtime.compilation_cache import cached

__all__ = ["as_json", "evaluate_model", "threshold_of"]

_THRESHOLD = 0.5


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
    component, variables = load_component(arguments.model, max_length=arguments.max_length)
    options = Options(precision=arguments.precision)
    chosen: dict[str, Any] = {"batch_size": arguments.batch_size, "options": options}
    threshold = threshold_of(component, arguments.threshold)
    with cached(cache_of(arguments)):
        if isinstance(component, TextClassification):
            texts = read_annotated(arguments.data, "documents", arguments, split=arguments.split)
            if threshold is not None:
                chosen["threshold"] = threshold
            return report_texts(component, variables, texts, **chosen)
        if isinstance(component, RelationClassification):
            notes = read_annotated(arguments.data, "relations", arguments, split=arguments.split)
            return report_relations(component, variables, notes, **chosen)
        documents = read_annotated(
            arguments.data,
            "entities",
            arguments,
            split=arguments.split,
            overlapping=len(component.layers) > 1,
        )
        unit = "sentence" if arguments.sentences else "document"
        return report_entities(component, variables, documents, unit=unit, **chosen)


def threshold_of(component: object, asked: float | None) -> float | None:
    """Return the least probability of a class, None for a model that gives texts one class.

    Raises
    ------
    ValueError
        If one is asked for that the model has no use for.
    """
    if isinstance(component, TextClassification) and component.is_multi_label:
        return _THRESHOLD if asked is None else asked
    if asked is not None:
        msg = f"--threshold is {asked}; the model does not give texts several classes, leave it out"
        raise ValueError(msg)
    return None


def as_json(report: Report) -> dict[str, Any]:
    """Return the numbers of a report; what is undefined (NaN) is null, as JSON has no NaN."""
    scores = {
        name: {field: _number(value) for field, value in score._asdict().items()}
        if isinstance(score, Interval)
        else {"value": _number(score)}
        for name, score in report.scores.items()
    }
    return {"loss": _number(report.loss), "scores": scores}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
