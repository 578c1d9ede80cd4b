"""Which entity is taken for which: a confusion table of spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from medjax.metrics.spans import Spans, Tags, check_lengths, span_pairs


class Confusion(NamedTuple):
    """What became of each true span, and the predicted spans that are beside all of them.

    Each true span counts once: in `same_span` when exactly its tokens are predicted, whatever the
    label; else in `partial` when a predicted span shares a token; else in `missed`.

    Attributes
    ----------
    labels : tuple of str
        All labels, true or predicted, sorted.
    same_span : dict of (str, str) to int
        Number of true spans by true and predicted label; pairs that do not occur are absent.
    partial, missed : dict of str to int
        Number of true spans by their label.
    spurious : dict of str to int
        Number of predicted spans that share no token with a true one, by their label.
    """

    labels: tuple[str, ...]
    same_span: dict[tuple[str, str], int]
    partial: dict[str, int]
    missed: dict[str, int]
    spurious: dict[str, int]


def label_confusion(y_true: Tags, y_pred: Tags, rule: str = "conlleval") -> Confusion:
    """Count which label is predicted for which true span.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of str
        Tags of each sentence, right and predicted.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags, see `medjax.tagging`.

    Returns
    -------
    Confusion
        The counts.

    Raises
    ------
    ValueError
        If the rule is unknown, a tag is none of it or the shapes differ.

    Examples
    --------
    >>> confusion = label_confusion([["B-Drug", "O", "B-Test"]], [["B-Test", "B-Drug", "O"]])
    >>> confusion.same_span, confusion.missed, confusion.spurious
    ({('Drug', 'Test'): 1}, {'Test': 1}, {'Drug': 1})
    """
    check_lengths(y_true, y_pred)
    pairs = span_pairs(y_true, y_pred, rule)
    return entity_confusion([true for true, _ in pairs], [found for _, found in pairs])


def entity_confusion(y_true: Spans, y_pred: Spans) -> Confusion:
    """Count which label is predicted for which annotated entity.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of (label, start, end)
        Entities of each document, annotated and predicted, as `entity_scores` takes them.

    Returns
    -------
    Confusion
        The counts; entities share a character where spans share a token.

    Raises
    ------
    ValueError
        If the number of documents differs.
    """
    same_span: Counter[tuple[str, str]] = Counter()
    partial: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    spurious: Counter[str] = Counter()
    labels: set[str] = set()
    for true_spans, pred_spans in zip(y_true, y_pred, strict=True):
        labels.update(span[0] for span in (*true_spans, *pred_spans))
        predicted = {(start, end): label for label, start, end, *_ in pred_spans}
        pred_places, true_places = _places(pred_spans), _places(true_spans)
        for label, start, end, *_ in true_spans:
            if (start, end) in predicted:
                same_span[label, predicted[start, end]] += 1
            elif pred_places.isdisjoint(range(start, end)):
                missed[label] += 1
            else:
                partial[label] += 1
        for label, start, end, *_ in pred_spans:
            if true_places.isdisjoint(range(start, end)):
                spurious[label] += 1
    columns = (dict(same_span), dict(partial), dict(missed), dict(spurious))
    return Confusion(tuple(sorted(labels)), *columns)


def _places(spans: Sequence[tuple[Any, ...]]) -> set[int]:
    return {place for _, start, end, *_ in spans for place in range(start, end)}
