"""Accuracy of predicted classes, per row or per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medjax.metrics._columns import DOCUMENT, IGNORED, labels_and_predictions, real_rows
from medjax.metrics.units import Units

__all__ = ["Accuracy"]


class Accuracy:
    """The share of labels that are predicted correctly, as a MetricsComputer.

    Positions with the label -100 and padding rows do not count.

    Examples
    --------
    >>> import numpy as np
    >>> batch = {"labels": np.array([[1, 2, -100]])}
    >>> columns = Accuracy().prepare_batch({"predictions": np.array([[1, 0, 0]])}, batch)
    >>> Accuracy().compute(columns)
    {'accuracy': 0.5}
    """

    def prepare_batch(
        self, model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
    ) -> dict[str, list[Any]]:
        """Return the label ids and predicted ids of the positions that count.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int, of the same shape as the labels, or ``"logits"``, with the
            classes on an additional last axis.
        input_batch : mapping
            ``"labels"``, int, any shape; -100 where nothing is to be predicted. Optionally
            ``row_mask``, and `DOCUMENT`, a list of int.

        Returns
        -------
        dict of str to list of int
            ``"labels"`` and ``"predictions"``, flat and of the same length, and `DOCUMENT` if the
            batch has it and one label for each row.

        Raises
        ------
        ValueError
            If a column is missing or the shapes differ.
        """
        labels, predictions = labels_and_predictions(model_output, input_batch)
        counts = labels != IGNORED
        prepared = {"labels": labels[counts].tolist(), "predictions": predictions[counts].tolist()}
        if DOCUMENT in input_batch and labels.ndim == 1:
            documents = real_rows(input_batch[DOCUMENT], input_batch)
            prepared[DOCUMENT] = [documents[row] for row in np.flatnonzero(counts)]
        return prepared

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        """Return the accuracy over all batches.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        dict of str to float
            ``"accuracy"``, between 0 and 1; 0.0 if no position counts.

        Raises
        ------
        ValueError
            If a column is missing, or there are more labels than predictions, or fewer.
        """
        correct = _correct(all_data)
        return {"accuracy": float(correct.mean()) if len(correct) else 0.0}

    def units(self, all_data: Mapping[str, list[Any]]) -> Units:
        """Return the labels as units to resample, for `medjax.metrics.bootstrap`.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns that `prepare_batch` returned for all batches, concatenated.

        Returns
        -------
        Units
            The entries of the columns: rows or, where a row has several labels, tokens.

        Raises
        ------
        ValueError
            If a column is missing, or there are more labels than predictions, or fewer.
        """
        correct = _correct(all_data)

        def weigh(weights: np.ndarray) -> dict[str, np.ndarray]:
            return {"accuracy": weights @ correct / np.maximum(weights.sum(axis=1), 1)}

        return Units(list(all_data["labels"]), weigh)


def _correct(all_data: Mapping[str, list[Any]]) -> np.ndarray:
    """Return 1 for each label that is predicted and 0 for the others, float64."""
    if not {"labels", "predictions"} <= all_data.keys():
        found = sorted(all_data)
        raise ValueError(f"found the columns {found}; expected 'labels' and 'predictions'")
    labels, predictions = all_data["labels"], all_data["predictions"]
    if len(labels) != len(predictions):
        msg = (
            f"found {len(labels)} labels and {len(predictions)} predictions; expected one "
            "prediction per label"
        )
        raise ValueError(msg)
    pairs = zip(labels, predictions, strict=True)
    return np.array([label == predicted for label, predicted in pairs], np.float64)
