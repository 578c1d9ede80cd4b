"""A training session: medjax's run with the Trainer's own methods as its phases."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from medjax import sharding
from medjax.checkpoint.space import bytes_of
from medjax.compiled import Compilation, Step
from medjax.loop.run import Metrics, Run
from medjax.loop.save import save
from medjax.progress import Progress
from medjax.schedules import ScheduleState
from medjax.state import TrainState
from medjax_torch.broken import check_evaluation, explaining
from medjax_torch.checkpoints import write_torch_files
from medjax_torch.component import ConvertedComponent
from medjax_torch.feed import Feed
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.preparation import Preparation


@dataclasses.dataclass
class Session:
    """What changes while a Trainer trains, at hand for its methods.

    Attributes
    ----------
    converted : ConvertedComponent
        What is trained.
    link : OptimizerLink or None
        The torch optimizer; None for one of optax.
    state : TrainState
        The state after the last step.
    progress : Progress
        Where the phase at hand began.
    metric : float or None
        Checkpoint metric of the save that is due.
    is_saving : bool
        Whether the loop has asked for a checkpoint.
    """

    converted: ConvertedComponent
    link: OptimizerLink | None
    state: TrainState
    progress: Progress
    metric: float | None = None
    is_saving: bool = False

    def write_back(self) -> None:
        """Copy weights and moments into the component and the torch optimizer."""
        leaves = jax.tree.leaves(self.state)
        if any(leaf.is_deleted() for leaf in leaves if isinstance(leaf, jax.Array)):
            return  # a step failed while it had the buffers; the component holds the last saved
        self.converted.write(sharding.to_host(self.state.variables))
        if self.link is not None:
            self.link.hand_back(self.state)


class WatchedStep:
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
        self._step = step
        self._session = session
        self._scheduler = scheduler
        self._accumulation = accumulation
        self._may_skip = may_skip
        self._pending = int(session.state.pending)
        self._nb_updates = int(session.state.step)

    @property
    def phase(self) -> str:
        """Training."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """What the step was compiled for."""
        return self._step.compilations

    def __call__(self, state: TrainState, batch: Any, flush: jax.Array) -> Any:
        """Run the step, and afterwards the scheduler if it is stepped by the update."""
        session = self._session
        if session.link is not None:
            state = session.link.sync(state)
        state, stats = self._step(state, batch, flush)
        session.state = state
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchRun(Run):
    """A run whose phases go through the methods of a Trainer, which a subclass may override."""

    trainer: Any
    session: Session
    preparation: Preparation

    @property
    def steps_per_dispatch(self) -> int:
        """Batches trained on in one call; 1 if a scheduler is stepped after each update."""
        by_step = self.trainer.options.lr_scheduler_interval == "step"
        return 1 if by_step else super().steps_per_dispatch

    def checkpoint_bytes(self, state: TrainState) -> int:
        """Return the bytes of a checkpoint, the file of a torch optimizer included."""
        moments = 0 if self.session.link is None else bytes_of(state.opt_state)
        return super().checkpoint_bytes(state) + moments

    def train_phase(
        self, state: TrainState, progress: Progress
    ) -> tuple[TrainState, Metrics, Progress]:
        """Call ``trainer.training_epoch()``."""
        self.session.state, self.session.progress = state, progress
        metrics = self.trainer.training_epoch()
        if self.session.progress is progress and progress.batch < len(self.train_loader):
            msg = (
                f"{type(self.trainer).__name__}.training_epoch trained no batch; expected it to "
                "call super().training_epoch(), which trains in JAX"
            )
            raise RuntimeError(msg)
        return self.session.state, metrics, self.session.progress

    def train_here(self) -> Metrics:
        """Train the epoch that the session is at."""
        session = self.session
        with explaining(self):
            session.state, metrics, session.progress = super().train_phase(
                session.state, session.progress
            )
        return metrics

    def eval_phase(self, state: TrainState, progress: Progress) -> Metrics:
        """Call ``trainer.evaluation_epoch(trainer.eval_dataloader)``."""
        self.session.state, self.session.progress = state, progress
        metrics: Metrics = self.trainer.evaluation_epoch(self.trainer.eval_dataloader)
        return metrics

    def eval_here(self, loader: Any) -> Metrics:
        """Evaluate the state of the session on the batches of a DataLoader."""
        feed = Feed(loader, self.preparation, train=False)
        run = dataclasses.replace(self, eval_loader=feed)
        state = self.session.state
        metrics = Run.eval_phase(run, state, self.session.progress)
        converted = self.session.converted
        check_evaluation(converted, state.variables, metrics["loss"], feed.batches(epoch=0))
        return metrics

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Call ``trainer.update_learning_rate(eval_metrics)`` and put in force what it set."""
        self.trainer.update_learning_rate(eval_metrics)
        state, schedule_state = super().next_epoch(state, progress, eval_metrics)
        if self.session.link is not None:
            state = self.session.link.sync(state)
            schedule_state = {"learning_rate": self.session.link.learning_rate}
        return state, schedule_state

    def save(
        self,
        state: TrainState,
        progress: Progress,
        *,
        epoch: int,
        metric: float | None,
        block: bool = False,
    ) -> str:
        """Call ``trainer.save(epoch)``."""
        del block  # always: the caller of Trainer.save finds a complete folder
        session = self.session
        session.state, session.progress, session.metric = state, progress, metric
        session.is_saving = True
        try:
            path: str = self.trainer.save(epoch)
        finally:
            session.is_saving = False
        return path

    def save_here(self, epoch: int) -> str:
        """Save the state of the session with everything that a resumed run needs."""
        session, trainer = self.session, self.trainer
        session.write_back()

        def write_files(folder: Path) -> None:
            write_torch_files(folder, trainer.optimizer, trainer.lr_scheduler, trainer.component)

        progress = self.with_callbacks(session.progress)
        return save(
            *(self.store, self.component, self.config, session.state, progress),
            epoch=epoch,
            metric=session.metric,
            callback=self.callback,
            block=True,
            write_files=write_files,
        )
