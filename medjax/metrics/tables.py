"""Format scores and confusions as plain text tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medjax.metrics.bootstrap import Interval
from medjax.metrics.confusion import Confusion
from medjax.metrics.spans import AVERAGES, MEASURES

__all__ = ["confusion_rows", "format_confusion", "format_scores", "format_table", "score_rows"]

_RANKING_MEASURES = ("auroc", "auprc")
_WHOLE_MEASURES = ("accuracy", "brier-score", "calibration-error", "cohen-kappa")


def format_scores(scores: Mapping[str, float | Interval]) -> str:
    """Return scores as a plain text table, labels first, then averages.

    Parameters
    ----------
    scores : mapping of str to float or Interval
        What `span_scores`, `SpanMetrics.compute` or `ClassificationMetrics.compute` returns, or
        `bootstrap` for it. The scores of a classification that are not per label follow below.

    Returns
    -------
    str
        The lines of the table, without a line break at the end.

    Examples
    --------
    >>> from medjax.metrics.spans import span_scores
    >>> print(format_scores(span_scores([["B-Drug", "B-Test"]], [["B-Drug", "O"]])))
              precision  recall  f1-score  support
    Drug         1.0000  1.0000    1.0000        1
    Test         0.0000  0.0000    0.0000        1
    micro        1.0000  0.5000    0.6667        2
    macro        0.5000  0.5000    0.5000        2
    weighted     0.5000  0.5000    0.5000        2
    """
    table = format_table(score_rows(scores))
    if "brier-score" not in scores:
        return table
    others = [[name, _cell(scores[name])] for name in _WHOLE_MEASURES if name in scores]
    return f"{table}\n\n{format_table(others)}"


def score_rows(scores: Mapping[str, float | Interval]) -> list[list[str]]:
    """Return scores as rows of text, labels first, then averages; the first is the heading.

    Parameters
    ----------
    scores : mapping of str to float or Interval
        As for `format_scores`.

    Examples
    --------
    >>> from medjax.metrics.spans import span_scores
    >>> score_rows(span_scores([["B-Drug"]], [["B-Drug"]]))[1]
    ['Drug', '1.0000', '1.0000', '1.0000', '1']
    """
    labels = [name.removesuffix("_support") for name in scores if name.endswith("_support")]
    measures = [*MEASURES, *(m for m in _RANKING_MEASURES if f"macro_{m}" in scores)]
    rows = [["", *measures, "support"]]
    for name in (*labels, *AVERAGES):
        values = [_cell(scores.get(f"{name}_{measure}")) for measure in measures]
        support = scores.get(f"{name}_support", scores["support"])
        count = support.value if isinstance(support, Interval) else support
        rows.append([name, *values, f"{count:.0f}"])
    return rows


def format_confusion(confusion: Confusion) -> str:
    """Return a confusion as a plain text table with a row for each true label.

    Parameters
    ----------
    confusion : Confusion
        What `label_confusion` or `entity_confusion` returns.

    Returns
    -------
    str
        The lines of the table, without a line break at the end.

    Examples
    --------
    >>> from medjax.metrics.confusion import label_confusion
    >>> confusion = label_confusion([["B-Drug", "O", "B-Test"]], [["B-Test", "B-Drug", "O"]])
    >>> print(format_confusion(confusion))
    true / predicted  Drug  Test  partial  missed
    Drug                 0     1        0       0
    Test                 0     0        0       1
    spurious             1     0        -       -
    """
    return format_table(confusion_rows(confusion))


def confusion_rows(confusion: Confusion) -> list[list[str]]:
    """Return a confusion as rows of text, one for each true label; the first is the heading.

    Parameters
    ----------
    confusion : Confusion
        As for `format_confusion`.

    Examples
    --------
    >>> from medjax.metrics.confusion import label_confusion
    >>> confusion_rows(label_confusion([["B-Drug"]], [["B-Drug"]]))[1]
    ['Drug', '1', '0', '0']
    """
    rows = [["true / predicted", *confusion.labels, "partial", "missed"]]
    for label in confusion.labels:
        same = [str(confusion.same_span.get((label, other), 0)) for other in confusion.labels]
        rest = [str(column.get(label, 0)) for column in (confusion.partial, confusion.missed)]
        rows.append([label, *same, *rest])
    spurious = [str(confusion.spurious.get(label, 0)) for label in confusion.labels]
    rows.append(["spurious", *spurious, "-", "-"])
    return rows


def _cell(score: float | Interval | None) -> str:
    if score is None:
        return "-"
    return str(score) if isinstance(score, Interval) else f"{score:.4f}"


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of cells as lines, with the first column to the left and the others to the right.

    Examples
    --------
    >>> print(format_table([["", "bytes"], ["params", "24"], ["step", "4"]]))
            bytes
    params     24
    step        4
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        )
        for row in rows
    )
