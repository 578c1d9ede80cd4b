"""Thresholds of a classifier by several labels, chosen on development data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["check_thresholds", "choose_thresholds"]


def choose_thresholds(
    columns: Mapping[str, Sequence[Any]], labels: Sequence[str]
) -> dict[str, float]:
    """Return the threshold of each label that maximises its F1.

    Choose them on development data, never on the data that are reported. The candidates are the
    midpoints between consecutive distinct probabilities, to which 0 and 1 belong as well. Of
    equally good ones that closest to 0.5 is taken, and of two such ones the lower. A label that no
    document has keeps 0.5.

    Parameters
    ----------
    columns : mapping of str to sequence
        The columns of `ClassificationMetrics` with ``multi_label``: ``"labels"`` and
        ``"probabilities"``, a list with one number per label for each document.
    labels : sequence of str
        Names of the labels.

    Returns
    -------
    dict of str to float
        By label, for `ClassificationMetrics(..., multi_label=True, threshold=...)`.

    Raises
    ------
    ValueError
        If the shapes differ or there is no document.

    Examples
    --------
    >>> columns = {"labels": [[1], [0], [1], [0]], "probabilities": [[0.75], [0.25], [0.5], [0.0]]}
    >>> choose_thresholds(columns, ["fever"])
    {'fever': 0.375}
    """
    truth = np.asarray(columns["labels"])
    probabilities = np.asarray(columns["probabilities"], np.float64)
    expected = (len(columns["labels"]), len(labels))
    if not len(truth) or truth.shape != expected or probabilities.shape != expected:
        msg = (
            f"labels have shape {truth.shape}, probabilities {probabilities.shape}; expected "
            f"{expected} for both, one number for each document and each of {tuple(labels)}, and "
            "at least one document"
        )
        raise ValueError(msg)
    return {
        label: _best_threshold(truth[:, column], probabilities[:, column])
        for column, label in enumerate(labels)
    }


def check_thresholds(
    threshold: float | Sequence[float] | np.ndarray | Mapping[str, float], labels: Sequence[str]
) -> np.ndarray:
    """Return a threshold for each label, float64.

    Parameters
    ----------
    threshold : float, sequence of float or mapping of str to float
        One for all labels, or one for each in the order of `labels` or by name.
    labels : sequence of str
        Names of the labels.

    Raises
    ------
    ValueError
        If they are not those of the labels, or not between 0 and 1.

    Examples
    --------
    >>> check_thresholds({"cough": 0.25, "fever": 0.5}, ["fever", "cough"]).tolist()
    [0.5, 0.25]
    """
    if isinstance(threshold, Mapping):
        if set(threshold) != set(labels):
            expected = tuple(labels)
            msg = f"found thresholds for {sorted(threshold)}; expected one for each of {expected}"
            raise ValueError(msg)
        threshold = [threshold[label] for label in labels]
    thresholds = np.asarray(threshold, np.float64)
    if thresholds.ndim == 0:
        thresholds = np.full(len(labels), thresholds)
    if thresholds.shape != (len(labels),):
        msg = f"thresholds have shape {thresholds.shape}; expected one for each of {tuple(labels)}"
        raise ValueError(msg)
    if not ((thresholds >= 0) & (thresholds <= 1)).all():
        raise ValueError(f"thresholds are {thresholds}; expected numbers between 0 and 1")
    return thresholds


def _best_threshold(true: np.ndarray, probabilities: np.ndarray) -> float:
    if not true.any():
        return 0.5
    distinct = np.unique([0.0, 1.0, *probabilities])
    below, above = distinct[:-1], distinct[1:]
    middle = (below + above) / 2
    candidates = np.where(middle > below, middle, above)  # neighbours have no number between them
    positions = np.searchsorted(candidates, probabilities, side="right")
    # The predicted documents of candidate i are those with a probability of at least it.
    nb_predicted = len(true) - np.bincount(positions, minlength=len(distinct)).cumsum()[:-1]
    missed = np.bincount(positions, weights=true, minlength=len(distinct)).cumsum()[:-1]
    f1 = 2 * (true.sum() - missed) / (nb_predicted + true.sum())
    best = candidates[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])
