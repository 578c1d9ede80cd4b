"""Confusion tables of labelled spans: which label is predicted for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from medjax.metrics.spans import Spans, Tags, check_lengths, span_pairs

__all__ = ["Confusion", "entity_confusion", "label_confusion"]


class Confusion(NamedTuple):
    """Counts of true spans by what was predicted for them, and of spurious predicted spans.

    Each true span counts once: in `same_span` if a predicted span has exactly its tokens, whatever
    its label; otherwise in `partial` if a predicted span shares a token with it; otherwise in
    `missed`. A predicted span stands for one true span only: of those with its tokens one with its
    label, or else, where several labels are left on the same tokens, the next in their order.

    Attributes
    ----------
    labels : tuple of str
        All labels, true or predicted, sorted.
    same_span : dict of (str, str) to int
        Number of true spans by true and predicted label; pairs that do not occur are absent.
    partial, missed : dict of str to int
        Number of true spans by label.
    spurious : dict of str to int
        Number of predicted spans that share no token with a true one, by label.

    Examples
    --------
    >>> confusion = label_confusion([["B-Drug", "O"]], [["B-Test", "O"]])
    >>> confusion.labels, confusion.same_span
    (('Drug', 'Test'), {('Drug', 'Test'): 1})
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
        True and predicted tags of each sentence.
    rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
        How spans are read from tags; see `medjax.text.tagging.tags_to_spans`.

    Returns
    -------
    Confusion
        The counts.

    Raises
    ------
    ValueError
        If the rule is unknown or does not allow a tag, or the lengths differ.

    Examples
    --------
    >>> confusion = label_confusion([["B-Drug", "O", "B-Test"]], [["B-Test", "B-Drug", "O"]])
    >>> confusion.same_span, confusion.missed, confusion.spurious
    ({('Drug', 'Test'): 1}, {'Test': 1}, {'Drug': 1})
    """
    check_lengths(y_true, y_pred)
    pairs = span_pairs(y_true, y_pred, rule)
    return entity_confusion([true for true, _ in pairs], [predicted for _, predicted in pairs])


def entity_confusion(y_true: Spans, y_pred: Spans) -> Confusion:
    """Count which label is predicted for which annotated entity.

    Parameters
    ----------
    y_true, y_pred : sequence of sequences of (label, start, end)
        Annotated and predicted entities of each document, as for `entity_scores`; one that is there
        twice counts once.

    Returns
    -------
    Confusion
        The counts. They are defined by the characters of entities, not by the tokens of spans.

    Raises
    ------
    ValueError
        If the number of documents differs.

    Examples
    --------
    >>> confusion = entity_confusion([[("Drug", 0, 7)]], [[("Drug", 0, 5), ("Test", 9, 12)]])
    >>> confusion.partial, confusion.spurious
    ({'Drug': 1}, {'Test': 1})
    """
    same_span: Counter[tuple[str, str]] = Counter()
    partial: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    spurious: Counter[str] = Counter()
    labels: set[str] = set()
    for true_spans, pred_spans in zip(map(_once, y_true), map(_once, y_pred), strict=True):
        labels.update(span[0] for span in (*true_spans, *pred_spans))
        pairs, unpaired = _paired(true_spans, pred_spans)
        same_span.update(pairs)
        pred_positions, true_positions = _positions(pred_spans), _positions(true_spans)
        for label, start, end in unpaired:
            if pred_positions.isdisjoint(range(start, end)):
                missed[label] += 1
            else:
                partial[label] += 1
        for label, start, end, *_ in pred_spans:
            if true_positions.isdisjoint(range(start, end)):
                spurious[label] += 1
    return Confusion(
        labels=tuple(sorted(labels)),
        same_span=dict(same_span),
        partial=dict(partial),
        missed=dict(missed),
        spurious=dict(spurious),
    )


def _once(spans: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(tuple(span[:3]) for span in spans))


def _paired(
    true_spans: Sequence[tuple[Any, ...]], pred_spans: Sequence[tuple[Any, ...]]
) -> tuple[list[tuple[str, str]], list[tuple[str, int, int]]]:
    """Return the true and predicted labels of spans that are the same, and the other true spans."""
    true_labels, pred_labels = _labels_by_place(true_spans), _labels_by_place(pred_spans)
    pairs: list[tuple[str, str]] = []
    unpaired: list[tuple[str, int, int]] = []
    for (start, end), true in true_labels.items():
        predicted = pred_labels.get((start, end), Counter())
        pairs += [(label, label) for label in (true & predicted).elements()]
        left = sorted((true - predicted).elements())
        others = sorted((predicted - true).elements())
        pairs += zip(left, others, strict=False)
        unpaired += [(label, start, end) for label in left[len(others) :]]
    return pairs, unpaired


def _labels_by_place(spans: Sequence[tuple[Any, ...]]) -> dict[tuple[int, int], Counter[str]]:
    places: dict[tuple[int, int], Counter[str]] = {}
    for label, start, end, *_ in spans:
        places.setdefault((start, end), Counter())[label] += 1
    return places


def _positions(spans: Sequence[tuple[Any, ...]]) -> set[int]:
    return {position for _, start, end, *_ in spans for position in range(start, end)}
