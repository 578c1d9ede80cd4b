"""Scores of trained components on annotated data, with 95 % intervals, as text and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from medjax.component import TrainableComponent, Variables
from medjax.components import RelationClassification, TextClassification, TokenClassification
from medjax.config import Options, TrainerConfig
from medjax.loop.evaluate import evaluate_with_columns
from medjax.metrics import (
    ClassificationMetrics,
    Interval,
    MetricsComputer,
    RelationMetrics,
    SpanMetrics,
    bootstrap,
    confusion_rows,
    entity_confusion,
    format_confusion,
    format_scores,
    score_rows,
)
from medjax.metrics.groups import number_groups
from medjax.metrics.tables import format_table
from medjax.text import Document, LabelledText

__all__ = [
    "Report",
    "check_test",
    "evaluated",
    "report_entities",
    "report_relations",
    "report_texts",
]

Columns = dict[str, list[Any]]
Rows = Sequence[Sequence[str]]
Thresholds = float | Mapping[str, float]

_HALF = 0.5


class Report(NamedTuple):
    """The scores of a component.

    Attributes
    ----------
    text : str
        Tables for people.
    loss : float
        Mean loss.
    scores : dict
        The scores by name; an `Interval` each if there are several units to resample.
    columns : dict of str to list
        What the scores are computed from.
    tables : dict of str to rows
        The tables by heading, for `medjax.write_report`.
    confusion : rows or None
        Counts by true and predicted label, for `medjax.write_report`.
    """

    text: str
    loss: float
    scores: Mapping[str, float | Interval]
    columns: Columns
    tables: dict[str, Rows]
    confusion: Rows | None = None


def check_test(component: Any, test: Sequence[Any]) -> None:
    """Refuse a test part that cannot be reported on; called before training, which takes long.

    Parameters
    ----------
    component : TokenClassification, TextClassification or RelationClassification
        The component that is to be trained.
    test : sequence
        Documents or labelled texts.

    Raises
    ------
    ValueError
        If the component cannot score them: a text has a class that is not in train, for instance.
    """
    try:
        component.expand(test, training=False)
    except ValueError as error:
        msg = (
            f"test cannot be reported on: {error}. Nothing was trained; correct the item, leave it "
            "out, or see to it that train has all classes"
        )
        raise ValueError(msg) from error


def evaluated(
    component: TrainableComponent,
    variables: Variables,
    data: Any,
    metrics: MetricsComputer,
    *,
    batch_size: int = 16,
    options: Options | None = None,
) -> tuple[dict[str, float], Columns]:
    """Return loss and scores of trained weights, and the columns that the scores come from.

    From the columns, `medjax.metrics.bootstrap` computes intervals, and other rules other scores.

    Parameters
    ----------
    component, variables, data, options
        As for `medjax.evaluate`.
    metrics : MetricsComputer
        Computes the scores.
    batch_size : int
        Rows of a batch.
    """
    config = TrainerConfig(output_dir="unused", batch_size=batch_size)
    return evaluate_with_columns(
        component, variables, config, data, metrics_computer=metrics, options=options
    )


def report_entities(
    tagger: TokenClassification,
    variables: Variables,
    documents: Sequence[Document],
    *,
    unit: str = "document",
    batch_size: int = 16,
    options: Options | None = None,
) -> Report:
    """Score entities by label, by two rules, and tell which labels are confused.

    Parameters
    ----------
    tagger, variables : TokenClassification, dict
        The component and its weights.
    documents : sequence of Document
        Annotated documents.
    unit : str
        What the text calls a document.
    batch_size : int
        Rows of a batch.
    options : Options, optional
        As for `medjax.evaluate`.
    """
    metrics = SpanMetrics(tagger.tags)
    strict = SpanMetrics(tagger.tags, tagger.tagging_scheme)
    found, columns = evaluated(
        tagger.component, variables, documents, metrics, batch_size=batch_size, options=options
    )
    scores = _with_intervals(metrics, columns, len(documents))
    strict_scores = _with_intervals(strict, columns, len(documents))
    confusion = entity_confusion(*metrics.entities(columns))
    head = f"{len(documents)} {unit}s, rule of conlleval{_intervals_by(unit, len(documents))}"
    same = f"The same, strict {tagger.tagging_scheme}"
    parts = (
        f"{head}:",
        format_scores(scores),
        f"{same}:",
        format_scores(strict_scores),
        "Confusion, rule of conlleval:",
        format_confusion(confusion),
        *tagger.expand(documents, training=False).notes,
    )
    return Report(
        "\n\n".join(parts),
        found["loss"],
        scores,
        columns,
        {head: score_rows(scores), same: score_rows(strict_scores)},
        confusion_rows(confusion),
    )


def report_texts(
    classifier: TextClassification,
    variables: Variables,
    texts: Sequence[LabelledText],
    *,
    threshold: Thresholds | None = None,
    batch_size: int = 16,
    options: Options | None = None,
) -> Report:
    """Score the classes of texts; the groups of the texts, if they have any, are resampled.

    Parameters
    ----------
    classifier, variables : TextClassification, dict
        The component and its weights.
    texts : sequence of LabelledText
        Annotated texts.
    threshold : float or mapping of str to float, optional
        Least probability of a class, where texts may have several; by default those of the
        classifier, or 0.5.
    batch_size : int
        Rows of a batch.
    options : Options, optional
        As for `medjax.evaluate`.
    """
    least = (classifier.thresholds or _HALF) if threshold is None else threshold
    metrics = ClassificationMetrics(
        classifier.labels, multi_label=classifier.is_multi_label, threshold=least
    )
    found, columns = evaluated(
        classifier.component, variables, texts, metrics, batch_size=batch_size, options=options
    )
    groups = [text.group for text in texts]
    has_groups = any(groups)
    nb_units = len(set(number_groups(groups)))
    scores = _with_intervals(metrics, columns, nb_units, groups if has_groups else None)
    unit = "group" if has_groups else "text"
    head = f"{len(texts)} texts{_intervals_by(unit, nb_units)}"
    lines = [f"{head}:", format_scores(scores)]
    tables: dict[str, Rows] = {head: score_rows(scores)}
    if isinstance(least, Mapping):
        rows = [("class", "threshold"), *((label, f"{least[label]:.4g}") for label in least)]
        tables["Thresholds"] = rows
        lines += ["", "Thresholds:", format_table(rows[1:])]
    confusion = None
    if not classifier.is_multi_label:
        confusion = _confusion(classifier.labels, columns)
        lines += ["", "Confusion, true by row and predicted by column:", format_table(confusion)]
    return Report("\n".join(lines), found["loss"], scores, columns, tables, confusion)


def report_relations(
    classifier: RelationClassification,
    variables: Variables,
    documents: Sequence[Document],
    *,
    batch_size: int = 16,
    options: Options | None = None,
) -> Report:
    """Score relations by label, and tell how many annotated ones are no candidates.

    Parameters
    ----------
    classifier, variables : RelationClassification, dict
        The component and its weights.
    documents : sequence of Document
        Documents with entities and relations.
    batch_size : int
        Rows of a batch.
    options : Options, optional
        As for `medjax.evaluate`.
    """
    metrics = RelationMetrics(classifier.classes)
    found, columns = evaluated(
        classifier.component, variables, documents, metrics, batch_size=batch_size, options=options
    )
    scores = _with_intervals(metrics, columns, len(documents))
    nb_relations = sum(len(set(document.relations)) for document in documents)
    notes = classifier.expand(documents, training=False).notes
    head = (
        f"{len(documents)} documents, {nb_relations} relations"
        f"{_intervals_by('document', len(documents))}"
    )
    remarks = notes or ["All annotated relations are candidates."]
    text = "\n".join([f"{head}:", format_scores(scores), "", *remarks])
    return Report(text, found["loss"], scores, columns, {head: score_rows(scores)})


def _with_intervals(
    metrics: MetricsComputer, columns: Columns, nb_units: int, groups: Any = None
) -> Mapping[str, float | Interval]:
    if nb_units < 2:  # there is nothing to resample
        return metrics.compute(columns)
    return bootstrap(metrics, columns, groups=groups)


def _intervals_by(unit: str, nb_units: int) -> str:
    return f", 95 % intervals by {unit}" if nb_units > 1 else ""


def _confusion(labels: Sequence[str], columns: Columns) -> list[list[str]]:
    from sklearn.metrics import confusion_matrix

    predicted = np.argmax(columns["probabilities"], axis=1)
    table = confusion_matrix(columns["labels"], predicted, labels=range(len(labels)))
    rows = [[label, *map(str, row)] for label, row in zip(labels, table, strict=True)]
    return [["", *labels], *rows]
