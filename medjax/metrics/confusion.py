"""Which entity is taken for which: a confusion table of spans."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from medjax.metrics.spans import Tags, check_lengths, span_pairs
from medjax.tagging import TokenSpan


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
    same_span: Counter[tuple[str, str]] = Counter()
    partial: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    spurious: Counter[str] = Counter()
    labels: set[str] = set()
    for true_spans, pred_spans in span_pairs(y_true, y_pred, rule):
        labels.update(span.label for span in (*true_spans, *pred_spans))
        predicted = {(span.first, span.stop): span.label for span in pred_spans}
        pred_tokens, true_tokens = _tokens(pred_spans), _tokens(true_spans)
        for label, first, stop in true_spans:
            if (first, stop) in predicted:
                same_span[label, predicted[first, stop]] += 1
            elif pred_tokens.isdisjoint(range(first, stop)):
                missed[label] += 1
            else:
                partial[label] += 1
        for label, first, stop in pred_spans:
            if true_tokens.isdisjoint(range(first, stop)):
                spurious[label] += 1
    columns = (dict(same_span), dict(partial), dict(missed), dict(spurious))
    return Confusion(tuple(sorted(labels)), *columns)


def _tokens(spans: list[TokenSpan]) -> set[int]:
    return {token for span in spans for token in range(span.first, span.stop)}
