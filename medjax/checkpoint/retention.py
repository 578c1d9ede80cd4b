"""Which checkpoints of a run are kept: a pure function of their records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["CheckpointEntry", "best", "comparable", "last", "superseded"]


class CheckpointEntry(NamedTuple):
    """What retention needs to know about a checkpoint.

    Attributes
    ----------
    serial : int
        Increases by one with every save to a folder.
    path : Path
        Its folder.
    run : str
        Identifies the run, however often it is resumed.
    metric : float or None
        Value of the checkpoint metric; None for a checkpoint within an epoch, or one whose
        evaluation did not compute this metric.
    was_compared : bool
        Whether it has only the value of another metric, or of other evaluation data, by which it
        may have been the best.
    copied : bool
        Whether its name differs from the one its run gave it: somebody copied or renamed it.
    evaluated_on : (int, int or None)
        Number of epochs of the run that were evaluated on other data than this, and the number of
        items of the evaluation data, None if it is not known.

    Examples
    --------
    >>> CheckpointEntry(serial=3, path=Path("runs/ner/a"), run="7f3a", metric=0.5).was_compared
    False
    """

    serial: int
    path: Path
    run: str
    metric: float | None
    was_compared: bool = False
    copied: bool = False
    evaluated_on: tuple[Any, Any] = (0, None)


def best(entries: Sequence[CheckpointEntry], *, minimize: bool) -> CheckpointEntry | None:
    """Return the best entry, or None; of equal ones the earliest, as in medkit. NaN is worst.

    An entry without a metric cannot be the best.

    Examples
    --------
    >>> a = CheckpointEntry(0, Path("a"), "r", float("nan"))
    >>> b = CheckpointEntry(1, Path("b"), "r", 3.0)
    >>> best([a, b], minimize=True).path
    PosixPath('b')
    """
    leader: CheckpointEntry | None = None
    for entry in sorted(entries):
        if entry.metric is None:
            continue
        if leader is None or _is_better(entry.metric, leader.metric, minimize=minimize):
            leader = entry
    return leader


def _is_better(metric: float, best_metric: float | None, *, minimize: bool) -> bool:
    if best_metric is None or math.isnan(best_metric):
        return not math.isnan(metric)
    return metric < best_metric if minimize else metric > best_metric


def comparable(entries: Sequence[CheckpointEntry]) -> list[CheckpointEntry]:
    """Return the entries of a run; those evaluated on other data than the last have no metric.

    Examples
    --------
    >>> a = CheckpointEntry(0, Path("a"), "r", 0.1, evaluated_on=(0, 3))
    >>> b = CheckpointEntry(1, Path("b"), "r", 0.9, evaluated_on=(1, 40))
    >>> [(entry.metric, entry.was_compared) for entry in comparable([a, b])]
    [(None, True), (0.9, False)]
    """
    newest = last(entries)
    return [
        entry
        if newest is None or _on_same_data(entry.evaluated_on, newest.evaluated_on)
        else entry._replace(
            metric=None, was_compared=entry.was_compared or entry.metric is not None
        )
        for entry in entries
    ]


def _on_same_data(one: tuple[Any, Any], other: tuple[Any, Any]) -> bool:
    return one[0] == other[0] and (None in (one[1], other[1]) or one[1] == other[1])


def last(entries: Sequence[CheckpointEntry]) -> CheckpointEntry | None:
    """Return the entry that was saved last, or None.

    Examples
    --------
    >>> a, b = (CheckpointEntry(i, Path(n), "r", 3.0) for i, n in enumerate("ab"))
    >>> last([b, a]).path.name
    'b'
    """
    return max(entries, default=None, key=lambda entry: entry.serial)


def superseded(
    entries: Sequence[CheckpointEntry], *, minimize: bool, keep_all: bool
) -> list[CheckpointEntry]:
    """Return the entries of one run that are neither the best nor the last.

    An entry that was compared by another metric, or on other data, is not superseded: nobody knows
    whether it is worse.

    Examples
    --------
    >>> losses = {"a": 3.0, "b": 1.0, "c": 2.0}
    >>> entries = [
    ...     CheckpointEntry(i, Path(n), "r", loss) for i, (n, loss) in enumerate(losses.items())
    ... ]
    >>> [entry.path.name for entry in superseded(entries, minimize=True, keep_all=False)]
    ['a']
    """
    if keep_all:
        return []
    kept = {best(entries, minimize=minimize), last(entries)}
    return [entry for entry in entries if entry not in kept and not entry.was_compared]
