"""MetricsComputer: medkit's protocol for scores that need the predictions of a whole epoch."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from medjax.batch import BatchData


@runtime_checkable
class MetricsComputer(Protocol):
    """Scores a phase in two steps: something to keep of each batch, then one computation."""

    def prepare_batch(
        self, model_output: BatchData, input_batch: BatchData
    ) -> dict[str, list[Any]]:
        """Return what `compute` needs of a batch.

        Parameters
        ----------
        model_output : BatchData
            What `forward` returned, as numpy arrays without padding rows.
        input_batch : BatchData
            What `collate` returned.

        Returns
        -------
        dict of str to list
            Columns; those of all batches are joined.
        """
        ...

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        """Return the scores by name, from the joined columns of all batches."""
        ...
