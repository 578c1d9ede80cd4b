"""What forward writes to in evaluation: the next batch finds it, as in torch, and training too."""

from __future__ import annotations

from typing import Any

from medjax.compiled import Step
from medjax.component import Variables
from medjax.state import TrainState
from medjax_torch.wrapped_step import WrappedStep


class WritingEvaluation(WrappedStep):
    """A step of evaluation that hands on what forward wrote.

    Parameters
    ----------
    step : Step
        From `make_eval_step` with its `with_collections`.

    Attributes
    ----------
    written : dict
        The new values of parameters and buffers, by collection; empty if forward writes to none.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(step)
        self.written: Variables = {}

    def __call__(self, variables: Variables, batch: Any) -> Any:
        """Return loss and outputs of a batch."""
        loss, outputs, collections = self._step(_merged(variables, self.written), batch)
        self.written = _merged(self.written, collections)
        return loss, outputs


def applied(written: Variables, state: TrainState) -> TrainState:
    """Return a state with what forward wrote in evaluation."""
    variables = _merged(state.variables, written)
    return state.replace(params=variables.pop("params"), collections=variables)


def _merged(variables: Variables, written: Variables) -> Variables:
    return variables | {name: {**variables.get(name, {}), **new} for name, new in written.items()}
