"""Which checkpoints of a run are kept: a pure function of their records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """What retention needs to know of a checkpoint.

    Attributes
    ----------
    serial : int
        Grows by one with every save into a folder.
    path : Path
        Its folder.
    run : str
        Identifies the run, over all its resumptions.
    metric : float or None
        Value of the checkpoint metric; None for a checkpoint within an epoch, or one whose
        evaluation did not give this metric.
    was_compared : bool
        Whether it has a value of another metric, by which it may have been the best.
    copied : bool
        Whether it has another name than its run gave it: somebody copied or renamed it.
    """

    serial: int
    path: Path
    run: str
    metric: float | None
    was_compared: bool = False
    copied: bool = False


def best(entries: Sequence[Entry], *, minimize: bool) -> Entry | None:
    """Return the best entry: strictly better than all before it, as in medkit; NaN is worst.

    An entry without a metric cannot be the best.

    Examples
    --------
    >>> a, b = Entry(0, Path("a"), "r", float("nan")), Entry(1, Path("b"), "r", 3.0)
    >>> best([a, b], minimize=True).path
    PosixPath('b')
    """
    chosen: Entry | None = None
    for entry in sorted(entries):
        if entry.metric is None:
            continue
        if chosen is None or _better(entry.metric, chosen.metric, minimize=minimize):
            chosen = entry
    return chosen


def _better(metric: float, than: float | None, *, minimize: bool) -> bool:
    if than is None or math.isnan(than):
        return not math.isnan(metric)
    return metric < than if minimize else metric > than


def last(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry that was saved last."""
    return max(entries, default=None, key=lambda entry: entry.serial)


def superseded(entries: Sequence[Entry], *, minimize: bool, keep_all: bool) -> list[Entry]:
    """Return the entries of one run that are neither the best nor the last.

    One that was compared by another metric only is kept: nobody knows whether it is worse.
    """
    if keep_all:
        return []
    kept = {best(entries, minimize=minimize), last(entries)}
    return [entry for entry in entries if entry not in kept and not entry.was_compared]
