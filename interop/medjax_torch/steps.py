"""The compiled steps as a session runs them: on what user code has made of the component."""

from __future__ import annotations

from typing import Any

import jax

from medjax.compiled import Step
from medjax.state import TrainState
from medjax_torch.session import Session
from medjax_torch.wrapped_step import WrappedStep


class WatchedStep(WrappedStep):
    """The training step, with the host's hyperparameters in force and its state kept at hand.

    Parameters
    ----------
    step : Step
        The compiled step.
    session : Session
        Gets the state after each step.
    scheduler : object or None
        A torch scheduler to be stepped after each update.
    accumulation : int
        Batches that make one update.
    may_skip : bool
        Whether batches may be left out. Then each step is waited for, to know whether it made an
        update, for the next rate depends on it.
    """

    def __init__(
        self, step: Step, session: Session, scheduler: Any, *, accumulation: int, may_skip: bool
    ) -> None:
        super().__init__(step)
        self._session = session
        self._scheduler = scheduler
        self._accumulation = accumulation
        self._may_skip = may_skip
        self._pending = int(session.state.pending)
        self._nb_updates = int(session.state.step)

    def __call__(self, state: TrainState, batch: Any, flush: jax.Array) -> Any:
        """Run the step, and afterwards the scheduler if it is stepped by the update."""
        session = self._session
        state = session.caught_up(session.handed_on(state))
        session.handed_on(state)
        self._step = session.step or self._step
        if session.link is not None:
            state = session.link.sync(state)
        state, stats = self._step(state, batch, flush)
        session.has_run(state)
        if self._scheduler is not None and self._has_updated(state, flush):
            self._scheduler.step()
        return state, stats

    def _has_updated(self, state: TrainState, flush: jax.Array) -> bool:
        if self._may_skip:
            before, self._nb_updates = self._nb_updates, int(state.step)
            return self._nb_updates > before
        self._pending += 1
        if self._pending < self._accumulation and not bool(flush):
            return False
        self._pending = 0
        return True


class WatchedEvalStep(WrappedStep):
    """The evaluation step, on what user code made of the weights since the evaluation began.

    Parameters
    ----------
    step : Step
        The compiled step.
    session : Session
        Has the newest state.
    """

    def __init__(self, step: Step, session: Session) -> None:
        super().__init__(step)
        self._session = session

    def __call__(self, variables: Any, batch: Any) -> Any:
        """Run the step."""
        del variables  # those that the evaluation began with
        session = self._session
        state = session.caught_up(session.state)
        loss, outputs, written = self._step(state.variables, batch)
        session.take(written)
        return loss, outputs
