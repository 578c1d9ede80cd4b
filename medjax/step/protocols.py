"""The steps as the loop calls them."""

from __future__ import annotations

from typing import Protocol

from medjax.batch import BatchData
from medjax.component import Variables
from medjax.metrics.mean import Mean
from medjax.runtime.jit import Compiled
from medjax.state import TrainState
from medjax.step.update import StepStats


class TrainStep(Compiled, Protocol):
    """Trains on a batch, or on several batches that `stack` made one of."""

    def __call__(self, state: TrainState, batch: BatchData, /) -> tuple[TrainState, StepStats]:
        """Return the next state and what the step tells.

        Parameters
        ----------
        state : TrainState
            Taken over (donated): its buffers are reused.
        batch : BatchData
            Columns on the device, marked by `with_update_due`.
        """
        ...


class EvalStep(Compiled, Protocol):
    """Evaluates a batch."""

    def __call__(self, variables: Variables, batch: BatchData, /) -> tuple[Mean, BatchData | None]:
        """Return the loss of the batch and, if they were asked for, the outputs of `forward`.

        Parameters
        ----------
        variables : dict
            ``state.variables``; left as they are.
        batch : BatchData
            Columns on the device.
        """
        ...


class CollectingEvalStep(Compiled, Protocol):
    """Evaluates a batch and keeps what `forward` changed, which `EvalStep` drops."""

    def __call__(
        self, variables: Variables, batch: BatchData, /
    ) -> tuple[Mean, BatchData | None, Variables]:
        """Return loss, outputs and the collections that `forward` changed."""
        ...
