"""MetricsComputer: medkit's protocol for metrics that need all the predictions of an epoch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from medjax.batch import BatchData

__all__ = ["MetricsComputer"]


@runtime_checkable
class MetricsComputer(Protocol):
    """Scores an epoch in two steps: extract data from each batch, then compute from all of it.

    Examples
    --------
    >>> import numpy as np
    >>> class Recall:
    ...     def prepare_batch(self, model_output, input_batch):
    ...         hits = model_output["predictions"][input_batch["labels"] == 1] == 1
    ...         return {"hits": hits.tolist()}
    ...
    ...     def compute(self, all_data):
    ...         return {"recall": sum(all_data["hits"]) / len(all_data["hits"])}
    >>> isinstance(Recall(), MetricsComputer)
    True
    >>> batch = BatchData(labels=np.array([1, 0, 1]))
    >>> Recall().compute(Recall().prepare_batch({"predictions": np.array([1, 1, 0])}, batch))
    {'recall': 0.5}
    """

    def prepare_batch(
        self, model_output: BatchData, input_batch: BatchData
    ) -> dict[str, list[Any]]:
        """Return what `compute` needs from a batch.

        Parameters
        ----------
        model_output : BatchData
            What `forward` returned, as numpy arrays without padding rows. Axes as long as the
            padded input are cut to the length before padding; those of another length that
            depends on it, as of a model that halves it, are not.
        input_batch : BatchData
            What `collate` returned.

        Returns
        -------
        dict of str to list
            Columns. Those of all batches are concatenated.
        """
        ...

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        """Return the scores by name, from the concatenated columns of all batches."""
        ...
