"""Documents with true and predicted labels, and their scores, by scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from medjax.metrics.spans import AVERAGES, MEASURES

NB_BINS = 15
"""Number of bins of the expected calibration error, as in Guo et al. (2017)."""


class Classified(NamedTuple):
    """Documents with true and predicted labels.

    Attributes
    ----------
    labels : tuple of str
        Names of the labels.
    truth, decided : numpy.ndarray
        Which labels each document has and is predicted to have, 0 or 1, int64, shape (documents,
        labels).
    probabilities : numpy.ndarray
        float64, shape (documents, labels).
    multi_label : bool
        Whether a document can have any number of labels; if not, it has one.
    """

    labels: tuple[str, ...]
    truth: np.ndarray
    decided: np.ndarray
    probabilities: np.ndarray
    multi_label: bool

    def squared_errors(self) -> np.ndarray:
        """Return the Brier score of each document, shape (documents,)."""
        sums: np.ndarray = ((self.probabilities - self.truth) ** 2).sum(axis=1)
        if self.multi_label:
            return sums / len(self.labels)
        # For two labels it is that of a binary classifier, as in scikit-learn.
        return sums * (0.5 if len(self.labels) == 2 else 1.0)

    def calibration_gaps(self) -> np.ndarray:
        """Return what each document adds to accuracy minus confidence, shape (documents, bins).

        The expected calibration error is the sum over bins of the absolute mean over documents. A
        bin includes its upper bound, the first also 0.
        """
        if self.multi_label:
            confidence, correct = self.probabilities, self.truth
        else:
            confidence = self.probabilities.max(axis=1, keepdims=True)
            correct = (self.truth * self.decided).sum(axis=1, keepdims=True)
        inner = np.linspace(0, 1, NB_BINS + 1)[1:-1]
        bins = np.digitize(confidence, inner, right=True)
        gaps = np.zeros((len(confidence), NB_BINS))
        rows = np.broadcast_to(np.arange(len(confidence))[:, None], bins.shape)
        np.add.at(gaps, (rows, bins), (correct - confidence) / confidence.shape[1])
        return gaps


def classification_scores(classified: Classified) -> dict[str, float]:
    """Return what `ClassificationMetrics.compute` describes, of at least one document."""
    truth, decided = classified.truth, classified.decided
    scores = _count_scores(classified) | _ranking_scores(classified)
    scores["accuracy"] = float((truth == decided).all(axis=1).mean())
    scores["brier-score"] = float(classified.squared_errors().mean())
    gaps = classified.calibration_gaps().sum(axis=0)
    scores["calibration-error"] = float(np.abs(gaps).sum() / len(truth))
    if not classified.multi_label:
        scores["cohen-kappa"] = _kappa(truth, decided)
    return scores


def _count_scores(classified: Classified) -> dict[str, float]:
    from sklearn.metrics import precision_recall_fscore_support

    truth, decided, wanted = classified.truth, classified.decided, None
    if len(classified.labels) == 1:  # scikit-learn reads one column as two classes
        truth, decided, wanted = truth[:, 0], decided[:, 0], [1]

    def measured(average: str | None) -> list[np.ndarray]:
        found = precision_recall_fscore_support(
            truth, decided, labels=wanted, average=average, zero_division=0
        )
        return [np.atleast_1d(values) for values in found[:3]]

    scores = {
        f"{average}_{measure}": float(value[0])
        for average in AVERAGES
        for measure, value in zip(MEASURES, measured(average), strict=True)
    }
    support = classified.truth.sum(axis=0)
    scores["support"] = int(support.sum())
    of_labels = measured(None)
    for column, label in enumerate(classified.labels):
        for measure, values in zip(MEASURES, of_labels, strict=True):
            scores[f"{label}_{measure}"] = float(values[column])
        scores[f"{label}_support"] = int(support[column])
    return scores


def _ranking_scores(classified: Classified) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = {"macro_auroc": np.nan, "macro_auprc": np.nan}
    columns = zip(classified.labels, classified.truth.T, classified.probabilities.T, strict=True)
    for label, true, probability in columns:
        some, some_not = true.any(), not true.all()
        auroc = roc_auc_score(true, probability) if some and some_not else np.nan
        auprc = average_precision_score(true, probability) if some else np.nan
        scores |= {f"{label}_auroc": float(auroc), f"{label}_auprc": float(auprc)}
    for measure in ("auroc", "auprc"):
        of_labels = np.array([scores[f"{label}_{measure}"] for label in classified.labels])
        defined = of_labels[~np.isnan(of_labels)]
        if defined.size:
            scores[f"macro_{measure}"] = float(defined.mean())
    return scores


def _kappa(truth: np.ndarray, decided: np.ndarray) -> float:
    from sklearn.metrics import cohen_kappa_score

    true, predicted = truth.argmax(axis=1), decided.argmax(axis=1)
    if (true == true[0]).all() and (predicted == true[0]).all():
        return float("nan")
    return float(cohen_kappa_score(true, predicted, labels=range(truth.shape[1])))
