"""Scores of documents that are classified: by one label each, or by any number of labels."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.metrics._classified import Classified, classification_scores
from medjax.metrics._columns import DOCUMENT, IGNORED, which_rows_are_real
from medjax.metrics._weighed import weigher
from medjax.metrics.spans import AVERAGES
from medjax.metrics.thresholds import check_thresholds
from medjax.metrics.units import Units

__all__ = ["ClassificationMetrics", "class_probabilities"]


class ClassificationMetrics:
    r"""Scores of a document classifier, as a MetricsComputer.

    With one label per document, the predicted label is the most probable one, by the softmax of the
    logits. With several, a label is predicted if its probability, the sigmoid of its logit, is at
    least its threshold.

    Parameters
    ----------
    labels : sequence of str
        Name of each label id.
    multi_label : bool
        Whether a document can have any number of labels.
    threshold : float, sequence of float or mapping of str to float
        With `multi_label`, the least probability of predicted labels: one for all, one for each in
        the order of `labels`, or by label, as `choose_thresholds` returns them.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    ValueError
        If labels are too few, repeated, or named like an average, or a threshold is not between 0
        and 1, not there for each label, or given without `multi_label`.

    Examples
    --------
    >>> metrics = ClassificationMetrics(("benign", "malignant"))
    >>> output = {"logits": np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]])}
    >>> columns = metrics.prepare_batch(output, {"labels": np.array([0, 1, 1])})
    >>> columns["labels"]
    [0, 1, 1]
    >>> scores = metrics.compute(columns)
    >>> scores["malignant_precision"], scores["malignant_recall"], scores["macro_auroc"]
    (1.0, 0.5, 1.0)
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        multi_label: bool = False,
        threshold: float | Sequence[float] | np.ndarray | Mapping[str, float] = 0.5,
    ) -> None:
        if importlib.util.find_spec("sklearn") is None:  # rather now than after an epoch
            msg = "ClassificationMetrics needs scikit-learn: pip install 'medjax[scores]'"
            raise ImportError(msg)
        self.labels = _checked_labels(labels, least=1 if multi_label else 2)
        self.multi_label = multi_label
        self.thresholds = check_thresholds(threshold, self.labels)
        if not multi_label and (self.thresholds != 0.5).any():
            msg = f"found threshold={threshold} for one label per document; it needs multi_label"
            raise ValueError(msg)

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[Any]]:
        """Return the labels and probabilities of a batch, without padding rows.

        Parameters
        ----------
        model_output : mapping
            ``"logits"``, shape (rows, labels), numpy or JAX array.
        input_batch : mapping
            ``"labels"``, int, shape (rows,), -100 for rows that do not count; with `multi_label`
            ``"targets"`` instead, 0 or 1, shape (rows, labels). Optionally
            ``row_mask``, and `DOCUMENT`, a list of int.

        Returns
        -------
        dict of str to list
            ``"labels"``, an int for each row, with `multi_label` a list of 0 and 1; and
            ``"probabilities"``, a list of float for each row, computed in float64; `DOCUMENT` if
            the batch has it.

        Raises
        ------
        ValueError
            If a column is missing, shapes differ, labels are not those above, or logits are not
            numbers.
        """
        logits = _column("output", model_output, "logits")
        truth = _column("batch", input_batch, "targets" if self.multi_label else "labels")
        counts = which_rows_are_real(input_batch, len(truth))
        self._check_shapes(truth, logits, "logits")
        if not self.multi_label:
            counts = counts & (truth != IGNORED)
        truth = self._checked_truth(truth[counts])
        probabilities = class_probabilities(logits[counts], multi_label=self.multi_label)
        prepared = {"labels": truth.tolist(), "probabilities": probabilities.tolist()}
        if DOCUMENT in input_batch:
            documents = input_batch[DOCUMENT]
            prepared[DOCUMENT] = [documents[row] for row in np.flatnonzero(counts)]
        return prepared

    def in_order(self, all_data: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """Return columns in the order of the dataset, for `bootstrap` with groups.

        An evaluation reads short documents first.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Raises
        ------
        ValueError
            If they do not have the position of each document once.

        Examples
        --------
        >>> columns = {"labels": [1, 0], "probabilities": [[0, 1], [1, 0]], "document": [1, 0]}
        >>> ClassificationMetrics(("no", "yes")).in_order(columns)["labels"]
        [0, 1]
        """
        documents = all_data.get(DOCUMENT, ())
        if None in documents or len(set(documents)) != len(all_data["labels"]):
            msg = (
                f"the columns have {len(set(documents))} positions of documents for "
                f"{len(all_data['labels'])} rows; expected one for each, from an evaluation with a "
                f"batch column {DOCUMENT!r}"
            )
            raise ValueError(msg)
        order = np.argsort(documents)
        return {name: [values[row] for row in order] for name, values in all_data.items()}

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        r"""Return the scores over all batches.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        dict of str to float
            - ``{average}_precision``, ``_recall`` and ``_f1-score`` for the averages ``micro``,
              ``macro`` and ``weighted``, and ``{label}_precision``, ``_recall``, ``_f1-score`` and
              ``_support`` for each label; ``support`` is the sum over labels. A score whose
              denominator is 0 is 0.
            - ``{label}_auroc`` and ``{label}_auprc`` (average precision) of each label against the
              rest, and their means ``macro_auroc`` and ``macro_auprc``. The AUROC of a label is NaN
              without documents that have it or without others, its AUPRC is NaN without documents
              that have it. Means leave NaN out, and are NaN if there is nothing else.
            - ``accuracy``: the share of documents whose predicted labels are exactly the true ones.
            - ``brier-score``: for one label of more than two, the mean over documents of
              :math:`\sum_k (p_k - y_k)^2`; for two labels half of it; with several labels per
              document, the mean of :math:`(p_k - y_k)^2` over documents and labels.
            - ``calibration-error``: the expected calibration error
              :math:`\sum_b \frac{n_b}{n} |\mathrm{acc}_b - \mathrm{conf}_b|` over 15 bins of equal
              width, of the highest probability of a document; with several labels per document, of
              all probabilities and whether their labels are true.
            - ``cohen-kappa``, with one label per document only: the agreement with the annotation
              corrected for chance; NaN if both consist of one and the same label.

            Without any document the first and ``accuracy`` are 0 and the others NaN.

        Raises
        ------
        ValueError
            If the columns are not those of `prepare_batch`.

        References
        ----------
        Scores are scikit-learn's, https://scikit-learn.org. Brier (1950), Verification of forecasts
        expressed in terms of probability; Guo et al. (2017), On Calibration of Modern Neural
        Networks; Cohen (1960), A coefficient of agreement for nominal scales.
        """
        classified = self._classified(all_data)
        if len(classified.truth):
            return classification_scores(classified)
        nothing = weigher(classified)(np.ones((1, 0)))
        return {name: float(values[0]) for name, values in nothing.items()}

    def units(self, all_data: Mapping[str, list[Any]]) -> Units:
        """Return the documents as units to resample, for `medjax.metrics.bootstrap`.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        Units
            The rows of the columns. A label without documents in a resample still counts in macro
            averages, as in `compute`; if that leaves an area undefined, the label has the area of
            the whole data in ``macro_auroc`` and ``macro_auprc``.

        Raises
        ------
        ValueError
            If the columns are not those of `prepare_batch`.
        """
        classified = self._classified(all_data)
        return Units(list(all_data["labels"]), weigher(classified))

    def _classified(self, all_data: Mapping[str, list[Any]]) -> Classified:
        nb_labels = len(self.labels)
        nb_rows = len(_column("columns", all_data, "labels"))
        truth = np.asarray(all_data["labels"])
        if not nb_rows:
            truth = truth.reshape((0, nb_labels) if self.multi_label else (0,)).astype(np.int64)
        probabilities = _column("columns", all_data, "probabilities").astype(np.float64)
        probabilities = probabilities if len(probabilities) else np.empty((0, nb_labels))
        self._check_shapes(truth, probabilities, "probabilities")
        truth = self._checked_truth(truth)
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError("found a probability that is not between 0 and 1")
        if self.multi_label:
            decided = probabilities >= self.thresholds
        else:
            truth = np.eye(nb_labels, dtype=np.int64)[truth]
            decided = np.eye(nb_labels, dtype=np.int64)[probabilities.argmax(axis=1)]
        return Classified(
            self.labels, truth, decided.astype(np.int64), probabilities, self.multi_label
        )

    def _check_shapes(self, truth: np.ndarray, values: np.ndarray, name: str) -> None:
        expected = (len(truth), len(self.labels))
        if values.shape != expected:
            msg = (
                f"{name} have shape {values.shape}; expected {expected}, one for each row and "
                f"each of the labels {self.labels}"
            )
            raise ValueError(msg)
        if truth.shape != (expected if self.multi_label else expected[:1]):
            hint = "one 0 or 1 per label" if self.multi_label else "or set multi_label=True"
            msg = f"true labels have shape {truth.shape}, {name} {values.shape}; expected {hint}"
            raise ValueError(msg)

    def _checked_truth(self, truth: np.ndarray) -> np.ndarray:
        """Return the true labels as int64; refuse numbers that stand for no label."""
        allowed = (0, 1) if self.multi_label else range(len(self.labels))
        wrong = ~np.isin(truth, allowed)
        if wrong.any():
            numbers = "0 or 1" if self.multi_label else f"0 to {len(self.labels) - 1}"
            msg = (
                f"found {truth[wrong][0]} among the true labels; expected {numbers}, for the "
                f"labels {self.labels}"
            )
            raise ValueError(msg)
        ids: np.ndarray = truth.astype(np.int64)
        return ids


def class_probabilities(logits: np.ndarray, *, multi_label: bool) -> np.ndarray:
    """Return the sigmoid of logits or, where each row has one label, their softmax.

    Parameters
    ----------
    logits : numpy.ndarray
        Shape (rows, classes).
    multi_label : bool
        Whether a row can have any number of labels.

    Returns
    -------
    numpy.ndarray
        Float64, as thresholds may lie closer to 1 than float32 can tell.

    Raises
    ------
    ValueError
        If one is not finite.

    Examples
    --------
    >>> class_probabilities(np.array([[0.0, 0.0]]), multi_label=False)
    array([[0.5, 0.5]])
    """
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is not a number is refused below
        if multi_label:
            probabilities: np.ndarray = np.exp(-np.logaddexp(0.0, -logits))
        else:
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            probabilities = shares / shares.sum(axis=1, keepdims=True)
    if not np.isfinite(probabilities).all():
        row = int(np.argwhere(~np.isfinite(probabilities))[0][0])
        msg = f"row {row} has the logits {logits[row]}; no probabilities follow from them"
        raise ValueError(msg)
    return probabilities


def _column(kind: str, columns: Mapping[str, Any], name: str) -> np.ndarray:
    if name not in columns:
        msg = f"found the columns {sorted(columns)} in the {kind}; expected {name!r} among them"
        raise ValueError(msg)
    return np.asarray(columns[name])


def _checked_labels(labels: Sequence[str], least: int) -> tuple[str, ...]:
    names = tuple(labels)
    if isinstance(labels, str) or len(names) < least or not all(isinstance(n, str) for n in names):
        raise ValueError(f"labels are {labels!r}; expected at least {least} names")
    if len(set(names)) < len(names):
        raise ValueError(f"labels are {names}; expected different names")
    if clash := set(names) & set(AVERAGES):
        msg = f"label {min(clash)!r} has the name of an average; rename it: {AVERAGES} are reserved"
        raise ValueError(msg)
    return names
