"""Precision, recall and F1 of labelled spans.

A predicted span is right when its label, its first and its last token are. The numbers are those
of seqeval 1.2.2 with ``zero_division=0`` (Nakayama 2018, https://github.com/chakki-works/seqeval):
with its lenient mode for the rule ``"conlleval"``, with ``mode="strict"`` for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from medjax.tagging import TokenSpan, check_rule, tags_to_spans

AVERAGES = ("micro", "macro", "weighted")
"""Averages of `span_scores`: over spans, over labels, over labels by their number of spans."""

MEASURES = ("precision", "recall", "f1-score")
"""What `span_scores` computes for each label and average."""

Tags = Sequence[Sequence[str]]
"""Tags of each sentence."""

Spans = Sequence[Sequence[tuple[Any, ...]]]
"""Label, start, end, and maybe more, of each span of each sentence or document."""


def span_scores(y_true: Tags, y_pred: Tags, rule: str = "conlleval") -> dict[str, float]:
    """Score predicted tags against the right ones.

    With tp spans right, of `predicted` and of `support` true ones: precision = tp / predicted,
    recall = tp / support, F1 = 2 precision recall / (precision + recall), and 0 where that divides
    by 0. ``micro`` takes the sums over all labels, ``macro`` the mean of the labels' scores,
    ``weighted`` their mean weighted by support.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of str
        Tags of each sentence, right and predicted.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags, see `medjax.tagging`.

    Returns
    -------
    dict of str to float
        ``micro_precision``, ``micro_recall``, ``micro_f1-score``, the same for ``macro`` and
        ``weighted``, ``support`` (int), ``accuracy`` (of tags), and for each label that is in the
        right or predicted spans ``{label}_precision``, ``_recall``, ``_f1-score``, ``_support``.
        The names are those of medkit's SeqEvalMetricsComputer. Without any span all are 0, where
        seqeval's macro average is NaN.

    Raises
    ------
    ValueError
        If the rule is unknown, a tag is none of it, the shapes differ, or a label is called as an
        average is.

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
    """Score predicted entities against the annotated ones, by label, start and end.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of (label, start, end)
        Entities of each document, annotated and predicted, in any order: for instance
        `medjax.text.Entity`, of which the score is ignored.

    Returns
    -------
    dict of str to float
        What `span_scores` returns, without ``accuracy``. An entity that is annotated twice counts
        twice in the support and is found once.

    Raises
    ------
    ValueError
        If the number of documents differs, or a label is called as an average is.

    Examples
    --------
    >>> scores = entity_scores([[("Drug", 0, 7)]], [[("Drug", 0, 7), ("Test", 9, 12)]])
    >>> scores["micro_precision"], scores["micro_recall"]
    (0.5, 1.0)
    """
    if len(y_true) != len(y_pred):
        msg = f"found predictions for {len(y_pred)} documents; expected {len(y_true)}"
        raise ValueError(msg)
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    support: Counter[str] = Counter()
    for true_spans, pred_spans in zip(y_true, y_pred, strict=True):
        true_set, pred_set = ({tuple(s[:3]) for s in spans} for spans in (true_spans, pred_spans))
        right.update(label for label, _, _ in true_set & pred_set)
        predicted.update(span[0] for span in pred_spans)
        support.update(span[0] for span in true_spans)
    labels = sorted(predicted | support)
    if clash := set(labels) & set(AVERAGES):
        msg = f"label {min(clash)!r} has the name of an average; rename it, {AVERAGES} are taken"
        raise ValueError(msg)
    counts = np.array([[c[label] for label in labels] for c in (right, predicted, support)])
    scores = _averages(counts)
    scores["support"] = sum(support.values())
    by_label = _measures(*counts)
    for column, label in enumerate(labels):
        for measure, values in zip(MEASURES, by_label, strict=True):
            scores[f"{label}_{measure}"] = float(values[column])
        scores[f"{label}_support"] = support[label]
    return scores


def with_accuracy(scores: dict[str, float], y_true: Tags, y_pred: Tags) -> dict[str, float]:
    """Return scores with the share of tags that are right, 0 where there is none."""
    check_lengths(y_true, y_pred)
    nb_right = sum(
        true == pred
        for true_tags, pred_tags in zip(y_true, y_pred, strict=True)
        for true, pred in zip(true_tags, pred_tags, strict=True)
    )
    return {**scores, "accuracy": nb_right / max(sum(map(len, y_true)), 1)}


def check_lengths(y_true: Tags, y_pred: Tags) -> None:
    """Refuse sentences that are not tagged once each, tag by tag.

    Raises
    ------
    ValueError
        If the number of sentences or of tags in a sentence differs.
    """
    if len(y_true) != len(y_pred):
        msg = f"found {len(y_pred)} predicted sentences; expected {len(y_true)}, one a true one"
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
        As in `span_scores`.
    """
    return [
        (tags_to_spans(true_tags, rule), tags_to_spans(pred_tags, rule))
        for true_tags, pred_tags in zip(y_true, y_pred, strict=True)
    ]


def _averages(counts: np.ndarray) -> dict[str, float]:
    support = counts[2]
    of_labels = _measures(*counts)
    of_sums = _measures(*counts.sum(axis=1, keepdims=True))
    averages = {
        "micro": [float(of_sum[0]) for of_sum in of_sums],
        "macro": [float(np.mean(values)) if values.size else 0.0 for values in of_labels],
        "weighted": [
            float(np.average(values, weights=support)) if support.any() else 0.0
            for values in of_labels
        ],
    }
    return {
        f"{average}_{measure}": value
        for average, values in averages.items()
        for measure, value in zip(MEASURES, values, strict=True)
    }


def _measures(
    right: np.ndarray, predicted: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    # The order of the operations is seqeval's, so that the last digit is too.
    precision = right / np.maximum(predicted, 1)
    recall = right / np.maximum(support, 1)
    total = precision + recall
    f1 = 2.0 * precision * recall / np.where(total == 0, 1.0, total)
    return precision, recall, f1
