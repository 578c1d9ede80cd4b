"""Precision, recall and F1 of labelled spans.

A predicted span is right when its label, its first and its last token are. The numbers are those
of seqeval 1.2.2 with ``zero_division=0`` (Nakayama 2018, https://github.com/chakki-works/seqeval):
with its lenient mode for the rule ``"conlleval"``, with ``mode="strict"`` for the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.metrics._columns import IGNORED, labels_and_predictions
from medjax.tagging import TokenSpan, check_rule, split_tag, tags_to_spans

AVERAGES = ("micro", "macro", "weighted")
"""Averages of `span_scores`: over spans, over labels, over labels by their number of spans."""

MEASURES = ("precision", "recall", "f1-score")
"""What `span_scores` computes for each label and average."""

Tags = Sequence[Sequence[str]]


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
    right: Counter[str] = Counter()
    predicted: Counter[str] = Counter()
    support: Counter[str] = Counter()
    for true_spans, pred_spans in span_pairs(y_true, y_pred, rule):
        right.update(span.label for span in set(true_spans) & set(pred_spans))
        predicted.update(span.label for span in pred_spans)
        support.update(span.label for span in true_spans)
    labels = sorted(predicted | support)
    if clash := set(labels) & set(AVERAGES):
        msg = f"label {min(clash)!r} has the name of an average; rename it, {AVERAGES} are taken"
        raise ValueError(msg)
    counts = np.array([[c[label] for label in labels] for c in (right, predicted, support)])
    nb_right = sum(
        true == pred
        for true_tags, pred_tags in zip(y_true, y_pred, strict=True)
        for true, pred in zip(true_tags, pred_tags, strict=True)
    )
    scores = _averages(counts)
    scores["support"] = sum(support.values())
    scores["accuracy"] = nb_right / max(sum(map(len, y_true)), 1)
    by_label = _measures(*counts)
    for column, label in enumerate(labels):
        for measure, values in zip(MEASURES, by_label, strict=True):
            scores[f"{label}_{measure}"] = float(values[column])
        scores[f"{label}_support"] = support[label]
    return scores


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


class SpanMetrics:
    """Span scores of a token classifier, as a MetricsComputer.

    Parameters
    ----------
    tags : sequence of str
        Name of each tag id, as `medjax.tagging.tag_names` returns them.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags; medkit reads iob2 tags by ``"conlleval"`` and bilou tags by
        ``"bilou"``.

    Raises
    ------
    ValueError
        If the rule is unknown or a tag is none of it.

    Examples
    --------
    >>> metrics = SpanMetrics(("O", "B-Drug", "I-Drug"))
    >>> batch = {"labels": np.array([[-100, 1, 2, 0]])}
    >>> columns = metrics.prepare_batch({"predictions": np.array([[0, 1, 2, 2]])}, batch)
    >>> columns
    {'y_true': [['B-Drug', 'I-Drug', 'O']], 'y_pred': [['B-Drug', 'I-Drug', 'I-Drug']]}
    >>> metrics.compute(columns)["micro_f1-score"]
    0.0
    """

    def __init__(self, tags: Sequence[str], rule: str = "conlleval") -> None:
        check_rule(rule)
        for tag in tags:
            split_tag(tag, rule)
        self.tags = tuple(tags)
        self.rule = rule

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[list[str]]]:
        """Return the tags of a batch, without the positions labelled -100 and padding rows.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int of shape (rows, length), or ``"logits"`` of shape (rows, length,
            tags), numpy or JAX arrays.
        input_batch : mapping
            ``"labels"``, int of shape (rows, length); -100 where nothing is to be predicted.

        Returns
        -------
        dict of str to list of list of str
            ``"y_true"`` and ``"y_pred"``, one list of tags a row.

        Raises
        ------
        ValueError
            If a column is missing, shapes disagree or an id has no tag.
        """
        labels, predictions = labels_and_predictions(model_output, input_batch)
        if labels.ndim != 2:
            msg = f"labels have shape {labels.shape}; expected (rows, length)"
            raise ValueError(msg)
        counts = labels != IGNORED
        return {
            "y_true": self._names(labels, counts),
            "y_pred": self._names(predictions, counts),
        }

    def _names(self, ids: np.ndarray, counts: np.ndarray) -> list[list[str]]:
        counted = ids[counts]
        if counted.size and not 0 <= counted.min() <= counted.max() < len(self.tags):
            msg = (
                f"tag ids from {counted.min()} to {counted.max()} found; expected 0 to "
                f"{len(self.tags) - 1}, the positions in {self.tags}"
            )
            raise ValueError(msg)
        return [
            [self.tags[tag_id] for tag_id in row[mask].tolist()]
            for row, mask in zip(ids, counts, strict=True)
        ]

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        """Return the scores of all batches together.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns of `prepare_batch`, joined.

        Returns
        -------
        dict of str to float
            See `span_scores`.
        """
        return span_scores(all_data["y_true"], all_data["y_pred"], self.rule)
