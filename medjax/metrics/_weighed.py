"""Scores of classified documents with weights, for many resamples at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medjax.metrics._classified import Classified
from medjax.metrics.spans import count_scores

Weigh = Callable[[np.ndarray], dict[str, np.ndarray]]


def weigher(classified: Classified) -> Weigh:
    """Return the function from weights to scores that `Units` describes.

    Parameters
    ----------
    classified : Classified
        Any number of documents.
    """
    labels, truth, decided, probabilities, multi_label = classified
    hits = truth * decided
    counts = np.concatenate([hits, decided, truth], axis=1).astype(np.float64)
    correct = (truth == decided).all(axis=1).astype(np.float64)
    errors, gaps = classified.squared_errors(), classified.calibration_gaps()
    rankings = [_Ranking(*column) for column in zip(truth.T, probabilities.T, strict=True)]
    once = np.ones((1, len(truth)))
    whole = np.array([ranking.areas(once) for ranking in rankings])

    def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
        total = weights.sum(axis=1)
        sums = (weights @ counts).reshape(len(weights), 3, len(labels))
        scores = count_scores(labels, sums)
        agreed = weights @ correct
        scores["accuracy"] = agreed / np.maximum(total, 1)
        scores["brier-score"] = _divide(weights @ errors, total)
        scores["calibration-error"] = _divide(np.abs(weights @ gaps).sum(axis=1), total)
        if not multi_label:
            by_chance = _divide((sums[:, 1] * sums[:, 2]).sum(axis=1), total)
            scores["cohen-kappa"] = 1 - _divide(total - agreed, total - by_chance)
        curves = np.array([ranking.areas(weights) for ranking in rankings])
        # A resample that does not define an area tells nothing of that of the label.
        averages = _mean_of_defined(np.where(np.isnan(curves), whole, curves))
        for number, measure in enumerate(("auroc", "auprc")):
            scores[f"macro_{measure}"] = averages[number]
            for label, values in zip(labels, curves[:, number], strict=True):
                scores[f"{label}_{measure}"] = values
        return scores

    return weigh


class _Ranking:
    """Documents ordered by the probability of a label.

    Parameters
    ----------
    true : numpy.ndarray
        Whether a document has the label, 0 or 1, shape (documents,).
    probabilities : numpy.ndarray
        Shape (documents,).
    """

    def __init__(self, true: np.ndarray, probabilities: np.ndarray) -> None:
        self._order = np.argsort(-probabilities, kind="stable")
        self._true = true[self._order][:, None]
        ranked = probabilities[self._order]
        # The documents of one probability are one step of the curves.
        self._starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1])[: len(ranked)])

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the areas under the ROC curve and under the precision-recall curve.

        Parameters
        ----------
        weights : numpy.ndarray
            float64, shape (resamples, documents).

        Returns
        -------
        auroc, auprc : numpy.ndarray
            Shape (resamples,); NaN where undefined.
        """
        if not len(self._order):
            return np.full(len(weights), np.nan), np.full(len(weights), np.nan)
        ranked = weights.T[self._order]
        all_documents = np.add.reduceat(ranked, self._starts, axis=0)
        positive = np.add.reduceat(ranked * self._true, self._starts, axis=0)
        negative = all_documents - positive
        found = positive.cumsum(axis=0)
        nb_positive = found[-1]
        # A pair of a positive and a negative document counts half if they have one probability.
        pairs = (negative * (found - positive / 2)).sum(axis=0)
        auroc = _divide(pairs, nb_positive * negative.sum(axis=0))
        precision = found / np.maximum(all_documents.cumsum(axis=0), 1)
        return auroc, _divide((positive * precision).sum(axis=0), nb_positive)


def _divide(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Return the quotients, NaN where the denominator is 0."""
    defined = denominators != 0
    return np.where(defined, numerators / np.where(defined, denominators, 1), np.nan)


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Return the means along the first axis without NaN, NaN if nothing else is there."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))
