"""Accuracy of predicted classes, per row or per token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medjax.metrics._columns import IGNORED, labels_and_predictions

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
    ) -> dict[str, list[int]]:
        """Return the label ids and predicted ids of the positions that count.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int, of the same shape as the labels, or ``"logits"``, with the
            classes on an additional last axis.
        input_batch : mapping
            ``"labels"``, int, any shape; -100 where nothing is to be predicted.

        Returns
        -------
        dict of str to list of int
            ``"labels"`` and ``"predictions"``, flat and of the same length.

        Raises
        ------
        ValueError
            If a column is missing or the shapes differ.
        """
        labels, predictions = labels_and_predictions(model_output, input_batch)
        counts = labels != IGNORED
        return {"labels": labels[counts].tolist(), "predictions": predictions[counts].tolist()}

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
        """
        labels, predictions = all_data["labels"], all_data["predictions"]
        nb_correct = sum(
            label == predicted for label, predicted in zip(labels, predictions, strict=True)
        )
        return {"accuracy": nb_correct / len(labels) if labels else 0.0}
