"""Precision, recall and F1 of labelled spans.

A predicted span is correct if its label, its first and its last token are. The numbers equal those
of seqeval 1.2.2 with ``zero_division=0`` (Nakayama 2018, https://github.com/chakki-works/seqeval):
those of its default mode for the rule ``"conlleval"``, those of ``mode="strict"`` for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from medjax.text.tagging import TokenSpan, check_rule, tags_to_spans

__all__ = ["AVERAGES", "MEASURES", "Spans", "Tags", "entity_scores", "span_scores"]

AVERAGES = ("micro", "macro", "weighted")
"""Averages of `span_scores`: over spans, over labels, over labels weighted by support."""

MEASURES = ("precision", "recall", "f1-score")
"""What `span_scores` computes for each label and average."""

Tags = Sequence[Sequence[str]]
"""The tags of each sentence."""

Spans = Sequence[Sequence[tuple[Any, ...]]]
"""The spans of each sentence or document: label, start, end and possibly more."""


def span_scores(y_true: Tags, y_pred: Tags, rule: str = "conlleval") -> dict[str, float]:
    """Return precision, recall and F1 of the spans in predicted tags.

    For a label with tp correct, n predicted and m true spans::

        precision = tp / n
        recall    = tp / m
        F1        = 2 * precision * recall / (precision + recall)

    A score whose denominator is 0 is 0. ``micro`` averages sum tp, n and m over the labels first;
    ``macro`` averages are means of the labels' scores, and ``weighted`` averages are means weighted
    by support, the number m of true spans.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of str
        True and predicted tags of each sentence.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags; see `medjax.text.tagging.tags_to_spans`.

    Returns
    -------
    dict of str to float
        ``micro_precision``, ``micro_recall`` and ``micro_f1-score``, the same for ``macro`` and
        ``weighted``; ``support`` (int); ``accuracy`` (of tags); and for each label of a true or
        predicted span ``{label}_precision``, ``_recall``, ``_f1-score`` and ``_support``. The
        names are those of medkit's SeqEvalMetricsComputer. Without any span, all but ``accuracy``
        are 0 (seqeval's macro average would be NaN).

    Raises
    ------
    ValueError
        If the rule is unknown or does not allow a tag, the lengths differ, or a label has the name
        of an average.

    References
    ----------
    Nakayama (2018), seqeval, https://github.com/chakki-works/seqeval; its default mode follows the
    evaluation of Tjong Kim Sang and Buchholz (2000), Introduction to the CoNLL-2000 shared task.

    Examples
    --------
    >>> scores = span_scores([["B-Drug", "I-Drug", "O"]], [["B-Drug", "I-Drug", "B-Test"]])
    >>> scores["micro_precision"], scores["Drug_f1-score"], scores["support"]
    (0.5, 1.0, 1)
    """
    check_rule(rule)
    check_lengths(y_true, y_pred)
    pairs = span_pairs(y_true, y_pred, rule)
    scores = entity_scores([true for true, _ in pairs], [predicted for _, predicted in pairs])
    return with_accuracy(scores, y_true, y_pred)


def entity_scores(y_true: Spans, y_pred: Spans) -> dict[str, float]:
    """Return precision, recall and F1 of predicted entities, compared by label, start and end.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of (label, start, end)
        Annotated and predicted entities of each document, in any order, for instance
        `medjax.text.Entity`; its score is ignored.

    Returns
    -------
    dict of str to float
        What `span_scores` returns, without ``accuracy``. An entity that is annotated or predicted
        twice, with the same label, start and end, counts once.

    Raises
    ------
    ValueError
        If the number of documents differs, or a label has the name of an average.

    Examples
    --------
    >>> scores = entity_scores([[("Drug", 0, 7)]], [[("Drug", 0, 7), ("Test", 9, 12)]])
    >>> scores["micro_precision"], scores["micro_recall"]
    (0.5, 1.0)
    """
    if len(y_true) != len(y_pred):
        msg = f"found predictions for {len(y_pred)} documents; expected {len(y_true)}"
        raise ValueError(msg)
    correct: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    support: Counter[str] = Counter()
    for true_spans, pred_spans in zip(y_true, y_pred, strict=True):
        for total, counted in zip(
            (correct, predicted, support), _counted(true_spans, pred_spans), strict=True
        ):
            total.update(counted)
    labels = sorted(predicted | support)
    if clash := set(labels) & set(AVERAGES):
        msg = f"label {min(clash)!r} has the name of an average; rename it: {AVERAGES} are reserved"
        raise ValueError(msg)
    counts = np.array([[[c[label] for label in labels] for c in (correct, predicted, support)]])
    return {
        name: int(values[0]) if name.endswith("support") else float(values[0])
        for name, values in count_scores(labels, counts).items()
    }


def entity_counts(y_true: Spans, y_pred: Spans) -> tuple[list[str], np.ndarray]:
    """Count the correct, predicted and true entities of each label in each document.

    Parameters
    ----------
    y_true, y_pred
        As for `entity_scores`.

    Returns
    -------
    labels : list of str
        Labels of all true and predicted entities, sorted.
    counts : numpy.ndarray
        Shape (documents, 3, labels), int.
    """
    counted = [_counted(*spans) for spans in zip(y_true, y_pred, strict=True)]
    labels = sorted({label for counters in counted for counter in counters for label in counter})
    columns = {label: column for column, label in enumerate(labels)}
    counts = np.zeros((len(counted), 3, len(labels)), np.int64)
    for document, counters in enumerate(counted):
        for kind, counter in enumerate(counters):
            for label, count in counter.items():
                counts[document, kind, columns[label]] = count
    return labels, counts


def weighed_scores(y_true: Spans, y_pred: Spans) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """Return what scores documents that occur several times, or not at all.

    Parameters
    ----------
    y_true, y_pred
        As for `entity_scores`.

    Returns
    -------
    callable
        It takes weights, float64 whole numbers, shape (resamples, documents), and returns what
        `entity_scores` does, shape (resamples,). The scores of a label that no entity of a
        resample has are NaN; in macro averages it has its scores on the whole data, as the resample
        tells nothing of it. So each is a mean over the same labels.
    """
    labels, counts = entity_counts(y_true, y_pred)
    whole = counts.sum(axis=0)

    def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
        flat = weights @ counts.reshape(len(counts), -1).astype(np.float64)
        totals = flat.reshape(len(weights), 3, len(labels))
        return count_scores(labels, totals, whole)

    return weigh


def count_scores(
    labels: Sequence[str], counts: np.ndarray, whole: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Return precision, recall and F1 from counts, for many data sets at once.

    Parameters
    ----------
    labels : sequence of str
        Names of the labels.
    counts : numpy.ndarray
        Numbers of correct, predicted and true instances, shape (data sets, 3, labels).
    whole : numpy.ndarray, optional
        The numbers of the data that the data sets are drawn from, shape (3, labels). If given, the
        scores of a label without predicted and true instances are NaN, and macro averages take
        those that it has here; by default they are 0.

    Returns
    -------
    dict of str to numpy.ndarray
        The scores that `span_scores` describes, without ``accuracy``; shape (data sets,).
    """
    support = counts[:, 2]
    of_labels = _measures(counts)
    of_sums = _measures(counts.sum(axis=2, keepdims=True))
    present = np.full(support.shape, True) if whole is None else counts[:, 1] + support > 0
    of_whole = of_labels if whole is None else _measures(whole[None])
    nb_labels = max(len(labels), 1)
    nb_true = support.sum(axis=1)
    averages = {
        "micro": [values[:, 0] for values in of_sums],
        "macro": [
            np.where(present, values, if_absent).sum(axis=1) / nb_labels
            for values, if_absent in zip(of_labels, of_whole, strict=True)
        ],
        "weighted": [(v * support).sum(axis=1) / np.maximum(nb_true, 1) for v in of_labels],
    }
    scores = {
        f"{average}_{measure}": value
        for average, values in averages.items()
        for measure, value in zip(MEASURES, values, strict=True)
    }
    scores["support"] = nb_true
    for column, label in enumerate(labels):
        for measure, values in zip((*MEASURES, "support"), (*of_labels, support), strict=True):
            scores[f"{label}_{measure}"] = np.where(present[:, column], values[:, column], np.nan)
    return scores


def with_accuracy(scores: dict[str, float], y_true: Tags, y_pred: Tags) -> dict[str, float]:
    """Return the scores with the accuracy of the tags, which is 0 if there are none."""
    check_lengths(y_true, y_pred)
    nb_correct = sum(
        true == pred
        for true_tags, pred_tags in zip(y_true, y_pred, strict=True)
        for true, pred in zip(true_tags, pred_tags, strict=True)
    )
    return {**scores, "accuracy": nb_correct / max(sum(map(len, y_true)), 1)}


def check_lengths(y_true: Tags, y_pred: Tags) -> None:
    """Raise ValueError if the number of sentences, or of tags in a sentence, differs."""
    if len(y_true) != len(y_pred):
        msg = (
            f"found {len(y_pred)} predicted sentences; expected {len(y_true)}, one per true "
            "sentence"
        )
        raise ValueError(msg)
    for index, (true_tags, pred_tags) in enumerate(zip(y_true, y_pred, strict=True)):
        if len(true_tags) != len(pred_tags):
            msg = f"sentence {index} has {len(pred_tags)} predicted tags; expected {len(true_tags)}"
            raise ValueError(msg)


def span_pairs(
    y_true: Tags, y_pred: Tags, rule: str
) -> list[tuple[list[TokenSpan], list[TokenSpan]]]:
    """Return the true and the predicted spans of each sentence.

    Parameters
    ----------
    y_true, y_pred, rule
        As for `span_scores`.
    """
    return [
        (tags_to_spans(true_tags, rule), tags_to_spans(pred_tags, rule))
        for true_tags, pred_tags in zip(y_true, y_pred, strict=True)
    ]


def _counted(
    true_spans: Sequence[tuple[Any, ...]], pred_spans: Sequence[tuple[Any, ...]]
) -> tuple[Counter[str], Counter[str], Counter[str]]:
    true_set, pred_set = ({tuple(s[:3]) for s in spans} for spans in (true_spans, pred_spans))
    correct, predicted, support = (
        Counter(label for label, _, _ in spans)
        for spans in (true_set & pred_set, pred_set, true_set)
    )
    return correct, predicted, support


def _measures(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    correct, predicted, support = counts[:, 0], counts[:, 1], counts[:, 2]
    # The operations are in the order of seqeval's, so that the results are equal bit for bit.
    precision = correct / np.maximum(predicted, 1)
    recall = correct / np.maximum(support, 1)
    total = precision + recall
    f1 = 2.0 * precision * recall / np.where(total == 0, 1.0, total)
    return precision, recall, f1
