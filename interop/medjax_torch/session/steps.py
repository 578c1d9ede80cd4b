"""The compiled steps as a session runs them, with what user code has done to the component."""

from __future__ import annotations

from medjax.batch import BatchData
from medjax.callbacks import TrainerCallback
from medjax.component import Variables
from medjax.metrics.mean import Mean
from medjax.state import TrainState
from medjax.step import UPDATE_DUE, CollectingEvalStep, StepStats, TrainStep
from medjax_torch.conversion import WrappedStep
from medjax_torch.conversion.component import WEIGHT
from medjax_torch.optimizers.schedulers import Scheduler
from medjax_torch.session.session import Session


class WatchedStep(WrappedStep[TrainStep]):
    """Trains with the host's current hyperparameters and keeps the session's state current.

    Parameters
    ----------
    session : Session
        Provides the programs and receives the state after each step.
    several : bool
        Whether the step trains on several batches in one call.
    """

    def __init__(self, session: Session, *, several: bool = False) -> None:
        super().__init__(session.programs.several if several else session.programs.one)
        self._session = session
        self._several = several

    def __call__(self, state: TrainState, batch: BatchData) -> tuple[TrainState, StepStats]:
        """Run the step."""
        session = self._session
        state = session.before_step(state)
        programs = session.programs  # new ones if the component or its optimizer has changed
        self._step = programs.several if self._several else programs.one
        state, stats = self._step(state, batch)
        session.has_run(state)
        session.leave(batch, batch[WEIGHT].size)
        return state, stats


class StepEnds(TrainerCallback):
    """Tells a session that the callbacks have heard of the end of a step; comes after them.

    Attributes
    ----------
    session : Session
        The session. It is made after the list of callbacks.
    """

    session: Session

    def on_step_end(
        self, step_idx: int, nb_batches: int, phase: str, loss: float | None = None
    ) -> None:
        """Tell the session."""
        del step_idx, nb_batches, loss
        if phase == "train":
            self.session.end_step()


class ScheduledStep(WrappedStep[TrainStep]):
    """Steps a torch scheduler after each update.

    Parameters
    ----------
    step : TrainStep
        The training step.
    scheduler : Scheduler
        The torch scheduler.
    state : TrainState
        The state at the beginning of training.
    accumulation : int
        Number of batches per update.
    may_skip : bool
        Whether batches may be skipped. If so, the host waits for each step to learn whether it made
        an update, because the next rate depends on it.
    """

    def __init__(
        self,
        step: TrainStep,
        scheduler: Scheduler,
        state: TrainState,
        *,
        accumulation: int,
        may_skip: bool,
    ) -> None:
        super().__init__(step)
        self._scheduler = scheduler
        self._accumulation = accumulation
        self._may_skip = may_skip
        self._pending = int(state.pending)
        self._nb_updates = int(state.step)

    def __call__(self, state: TrainState, batch: BatchData) -> tuple[TrainState, StepStats]:
        """Run the step, then the scheduler if the step made an update."""
        state, stats = self._step(state, batch)
        if self._has_updated(state, batch):
            self._scheduler.step()
        return state, stats

    def _has_updated(self, state: TrainState, batch: BatchData) -> bool:
        if self._may_skip:
            before, self._nb_updates = self._nb_updates, int(state.step)
            return self._nb_updates > before
        self._pending += 1
        if self._pending < self._accumulation and not bool(batch[UPDATE_DUE]):
            return False
        self._pending = 0
        return True


class WatchedEvalStep(WrappedStep[CollectingEvalStep]):
    """Evaluates the current weights, including changes by user code during the evaluation.

    Parameters
    ----------
    step : CollectingEvalStep
        The compiled step.
    session : Session
        Provides the newest state.
    """

    def __init__(self, step: CollectingEvalStep, session: Session) -> None:
        super().__init__(step)
        self._session = session

    def __call__(self, variables: Variables, batch: BatchData) -> tuple[Mean, BatchData | None]:
        """Run the step on the newest variables."""
        del variables  # the values at the beginning of the evaluation
        session = self._session
        state = session.caught_up(session.state)
        loss, outputs, written = self._step(state.variables, batch)
        session.take(written)
        session.leave(batch)
        return loss, outputs
