"""The table of epochs: which metrics have a column, in which order, and how wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medjax.callbacks.writers import plain

__all__ = ["chosen_columns", "heading", "number_text", "row"]

Metrics = Mapping[str, Mapping[str, Any]]
Column = tuple[str, str]
"""Phase and name of a metric."""

_GAP = "  "
_FIRST = ("epoch", " seconds")
_NARROWEST = 10  # characters of -1.234e-05
_WIDEST = 40  # characters of a score that is no number


def chosen_columns(
    metrics: Metrics, *, metric: str, max_columns: int, width: int
) -> tuple[list[Column], int]:
    """Choose the metrics that have a column: the losses, then the checkpoint metric, then others.

    Parameters
    ----------
    metrics : mapping
        Metrics by phase and name.
    metric : str
        The checkpoint metric.
    max_columns : int
        Columns of a phase.
    width : int
        Characters of a line.

    Returns
    -------
    columns : list of (str, str)
        Phase and name of each. There is at least one, however narrow the line is.
    nb_others : int
        Number of metrics without a column.

    Examples
    --------
    >>> metrics = {"train": {"loss": 0.5}, "eval": {"loss": 0.6, "recall": 0.8, "f1": 0.7}}
    >>> chosen_columns(metrics, metric="f1", max_columns=6, width=56)
    ([('train', 'loss'), ('eval', 'loss'), ('eval', 'f1')], 1)
    """

    def rank(column: Column) -> int:
        name = column[1]
        return 0 if name == "loss" else 1 if name == metric else 2

    columns: list[Column] = []
    for phase, scores in metrics.items():
        columns += sorted(((phase, name) for name in scores), key=rank)[:max_columns]
    columns.sort(key=rank)
    while len(columns) > 1 and len(heading(columns)) > width:
        columns.pop()
    return columns, sum(map(len, metrics.values())) - len(columns)


def heading(columns: Sequence[Column]) -> str:
    """Return the first line of the table."""
    return _GAP.join([*_FIRST, *(_title(column).rjust(_NARROWEST) for column in columns)])


def row(metrics: Metrics, columns: Sequence[Column], epoch: int, seconds: float) -> str:
    """Return the line of an epoch.

    Examples
    --------
    >>> row({"eval": {"loss": 0.25}}, [("eval", "loss")], epoch=1, seconds=2.5)
    '    1       2.5        0.25'
    """
    cells = [f"{epoch:5d}", f"{seconds:8.1f}"]
    for phase, name in columns:
        value = metrics[phase][name]
        number = value if isinstance(value, str) else plain(value)
        text = number_text(number) if isinstance(number, float) else " ".join(number.split())
        if len(text) > _WIDEST:  # a matrix, for instance
            text = f"{text[: _WIDEST - 4]} ..."
        cells.append(text.rjust(max(_NARROWEST, len(_title((phase, name))))))
    return _GAP.join(cells)


def number_text(value: float) -> str:
    """Return a number with four digits, or all digits before the point.

    Examples
    --------
    >>> number_text(0.123456), number_text(12345)
    ('0.1235', '12345')
    """
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _title(column: Column) -> str:
    return " ".join(column)
