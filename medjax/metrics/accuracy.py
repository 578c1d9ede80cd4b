"""Accuracy of classes, of rows or of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medjax.metrics._columns import IGNORED, labels_and_predictions


class Accuracy:
    """The share of labels that are predicted, as a MetricsComputer.

    Positions whose label is -100 do not count, nor do padding rows.

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
        """Return the ids of a batch that count.

        Parameters
        ----------
        model_output : mapping
            ``"predictions"``, int of the shape of the labels, or ``"logits"`` with the classes on
            one more axis.
        input_batch : mapping
            ``"labels"``, int, any shape; -100 where nothing is to be predicted.

        Returns
        -------
        dict of str to list of int
            ``"labels"`` and ``"predictions"``, flat and of one length.

        Raises
        ------
        ValueError
            If a column is missing or the shapes disagree.
        """
        labels, predictions = labels_and_predictions(model_output, input_batch)
        counts = labels != IGNORED
        return {"labels": labels[counts].tolist(), "predictions": predictions[counts].tolist()}

    def compute(self, all_data: Mapping[str, list[Any]]) -> dict[str, float]:
        """Return the accuracy of all batches together.

        Parameters
        ----------
        all_data : mapping of str to list
            The columns of `prepare_batch`, joined.

        Returns
        -------
        dict of str to float
            ``"accuracy"`` between 0 and 1; 0.0 when there is nothing to count.
        """
        labels, predictions = all_data["labels"], all_data["predictions"]
        nb_right = sum(
            label == predicted for label, predicted in zip(labels, predictions, strict=True)
        )
        return {"accuracy": nb_right / len(labels) if labels else 0.0}
