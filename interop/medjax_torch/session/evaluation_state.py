"""State that forward writes in evaluation: as in torch, later batches and training see it."""

from __future__ import annotations

from medjax.batch import BatchData
from medjax.component import Variables
from medjax.metrics.mean import Mean
from medjax.state import TrainState
from medjax.step import CollectingEvalStep
from medjax_torch.conversion import WrappedStep


class WritingEvaluation(WrappedStep[CollectingEvalStep]):
    """Evaluates each batch with the values that forward wrote in earlier batches.

    Parameters
    ----------
    step : CollectingEvalStep
        The evaluation step.

    Attributes
    ----------
    written : dict
        New values of parameters and buffers, by collection; empty if forward writes to none.
    """

    def __init__(self, step: CollectingEvalStep) -> None:
        super().__init__(step)
        self.written: Variables = {}

    def __call__(self, variables: Variables, batch: BatchData) -> tuple[Mean, BatchData | None]:
        """Return loss and outputs of a batch."""
        loss, outputs, collections = self._step(_merged(variables, self.written), batch)
        self.written = _merged(self.written, collections)
        return loss, outputs


def applied(written: Variables, state: TrainState) -> TrainState:
    """Return a state with the values that forward wrote in evaluation."""
    variables = _merged(state.variables, written)
    return state.replace(params=variables.pop("params"), collections=variables)


def _merged(variables: Variables, written: Variables) -> Variables:
    return variables | {name: {**variables.get(name, {}), **new} for name, new in written.items()}
