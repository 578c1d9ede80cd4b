"""What forward writes to in evaluation: the next batch finds it, as in torch, and training too."""

from __future__ import annotations

from medjax.batch import BatchData
from medjax.component import Variables
from medjax.metrics.mean import Mean
from medjax.state import TrainState
from medjax.step import CollectingEvalStep
from medjax_torch.conversion import WrappedStep


class WritingEvaluation(WrappedStep[CollectingEvalStep]):
    """Evaluates each batch with what forward wrote in the batches before it.

    Parameters
    ----------
    step : CollectingEvalStep
        The step of evaluation.

    Attributes
    ----------
    written : dict
        The new values of parameters and buffers, by collection; empty if forward writes to none.
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
    """Put what forward wrote in evaluation into a state."""
    variables = _merged(state.variables, written)
    return state.replace(params=variables.pop("params"), collections=variables)


def _merged(variables: Variables, written: Variables) -> Variables:
    return variables | {name: {**variables.get(name, {}), **new} for name, new in written.items()}
