"""Extract label ids and predicted ids from a batch, for all MetricsComputers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.batch import ROW_MASK

DOCUMENT = "document"
"""Name of the batch column with the position of each row's document in its dataset."""

IGNORED = -100
"""Label id of positions that losses and scores ignore, as in PyTorch's cross-entropy."""


def labels_and_predictions(
    model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label ids and the predicted ids of the real rows of a batch.

    Parameters
    ----------
    model_output : mapping
        ``"predictions"``, int, of the same shape as the labels; otherwise ``"logits"``, with the
        classes on an additional last axis, of which the argmax is taken.
    input_batch : mapping
        ``"labels"``, int, and optionally `ROW_MASK`, which is 0 for rows to leave out.

    Returns
    -------
    labels, predictions : numpy.ndarray
        Two arrays of the same shape.

    Raises
    ------
    ValueError
        If a column is missing or the shapes differ.
    """
    if "labels" not in input_batch:
        msg = f"the batch has the columns {sorted(input_batch)}; expected 'labels' among them"
        raise ValueError(msg)
    labels = np.asarray(input_batch["labels"])
    if "predictions" in model_output:
        predictions = np.asarray(model_output["predictions"])
    elif "logits" in model_output:
        predictions = np.asarray(model_output["logits"]).argmax(axis=-1)
    else:
        msg = (
            f"the output has the columns {sorted(model_output)}; expected 'predictions' or 'logits'"
        )
        raise ValueError(msg)
    if labels.shape != predictions.shape:
        msg = (
            f"labels have shape {labels.shape}, predictions {predictions.shape}; expected one "
            "prediction per label"
        )
        raise ValueError(msg)
    if ROW_MASK in input_batch:
        real = which_rows_are_real(input_batch, len(labels))
        return labels[real], predictions[real]
    return labels, predictions


def real_rows(column: Sequence[Any], input_batch: Mapping[str, Any]) -> list[Any]:
    """Return the entries of a column without those of padding rows."""
    mask = which_rows_are_real(input_batch, len(column))
    return [value for value, real in zip(column, mask, strict=True) if real]


def which_rows_are_real(input_batch: Mapping[str, Any], nb_rows: int) -> np.ndarray:
    """Return a bool for each row of a batch: False for padding rows."""
    return np.asarray(input_batch.get(ROW_MASK, np.ones(nb_rows))) > 0
