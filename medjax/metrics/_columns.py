"""Reference and predicted ids out of a batch, for every computer of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medjax.batch import ROW_MASK

IGNORED = -100
"""Label id of a position that no score and no loss counts, as in PyTorch's cross entropy."""


def labels_and_predictions(
    model_output: Mapping[str, Any], input_batch: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label ids and the predicted ids of the real rows of a batch.

    Parameters
    ----------
    model_output : mapping
        ``"predictions"``, int of the shape of the labels, or else ``"logits"`` with one more axis
        (the last, over which the argmax is taken).
    input_batch : mapping
        ``"labels"``, int, and maybe `ROW_MASK`, which is 0 for the rows to leave out.

    Returns
    -------
    labels, predictions : numpy.ndarray
        Two arrays of one shape.

    Raises
    ------
    ValueError
        If a column is missing or the shapes disagree.
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
            "prediction a label"
        )
        raise ValueError(msg)
    if ROW_MASK in input_batch:
        real = np.asarray(input_batch[ROW_MASK]) > 0
        return labels[real], predictions[real]
    return labels, predictions


def real_rows(column: Sequence[Any], input_batch: Mapping[str, Any]) -> list[Any]:
    """Return the entries of a column's real rows."""
    mask = input_batch.get(ROW_MASK, np.ones(len(column)))
    return [value for value, real in zip(column, np.asarray(mask) > 0, strict=True) if real]
