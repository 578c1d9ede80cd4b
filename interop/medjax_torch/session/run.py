"""A training run of a Trainer: the loop calls the Trainer's methods, which do their work here."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from medjax.checkpoint.progress import Progress
from medjax.loop.epochs import Metrics
from medjax.loop.phases import evaluate_state, next_epoch, train_rest
from medjax.loop.run import Run
from medjax.loop.save import save
from medjax.schedules import ScheduleState
from medjax.state import TrainState
from medjax_torch.checkpoints import write_torch_files
from medjax_torch.conversion import BatchAdapter
from medjax_torch.session.broken_conditions import check_evaluation, explaining
from medjax_torch.session.feed import Feed
from medjax_torch.session.flags import with_flags
from medjax_torch.session.kept import Kept
from medjax_torch.session.replaced import Attributes
from medjax_torch.session.session import DueSave, Session
from medjax_torch.session.trainer_protocol import TrainerProtocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class TorchRun:
    """Does the work of a Trainer's methods while it trains.

    Attributes
    ----------
    parts : Run
        The parts of the run.
    trainer : TrainerProtocol
        The Trainer.
    session : Session
        The state that changes during training.
    preparation : BatchAdapter
        Prepares the batches of the run.
    kept : Kept
        What else a resumed run gets.
    """

    parts: Run
    trainer: TrainerProtocol
    session: Session
    preparation: BatchAdapter
    kept: Kept

    @property
    def phases(self) -> TrainerPhases:
        """The phases called by the loop."""
        return TrainerPhases(self)

    def train(self) -> Metrics:
        """Train for the rest of the session's epoch."""
        session, save = self.session, self.phases.save
        groups = self.parts.groups
        training = session.training(1 if groups is None else groups.size)
        with explaining(session, self.parts.train_loader), training:
            session.state, metrics, session.progress = train_rest(
                self.parts, session.state, session.progress, save
            )
        return metrics

    def evaluate(self, loader: DataLoader[Any]) -> Metrics:
        """Evaluate the session's state on the batches of a DataLoader."""
        session = self.session
        feed = Feed(loader, self.preparation, train=False)
        save = self.phases.save
        metrics = evaluate_state(self.parts, feed, session.state, session.progress, save)
        variables = session.state.variables
        check_evaluation(session.converted, variables, metrics["loss"], feed.batches(epoch=0))
        return metrics

    def save(self, epoch: int, due: DueSave) -> str:
        """Save the session's state with everything that a resumed run needs.

        Parameters
        ----------
        epoch : int
            Epoch in the name of the folder.
        due : DueSave
            The checkpoint requested by the loop.
        """
        session, trainer, parts = self.session, self.trainer, self.parts
        session.write_back()

        def write_files(folder: Path) -> None:
            write_torch_files(folder, trainer.optimizer, trainer.lr_scheduler, trainer.component)

        return save(
            parts.store,
            parts.request,
            session.state,
            with_flags(parts.with_callbacks(session.progress), session.converted),
            epoch=epoch,
            metric=due.metric,
            block=True,
            write_files=write_files,
        )


class TrainerPhases:
    """The phases of an epoch, as methods of a Trainer that a subclass may override.

    Parameters
    ----------
    run : TorchRun
        The run that the methods work on.
    """

    def __init__(self, run: TorchRun) -> None:
        self._run = run.parts
        self._trainer = run.trainer
        self._session = run.session
        self._kept = run.kept
        self._attributes = Attributes(run.trainer)

    def train(self, state: TrainState, progress: Progress) -> tuple[TrainState, Metrics, Progress]:
        """Call ``trainer.training_epoch()``."""
        session = self._session
        self._attributes.check()
        session.state = session.handed_on(state)
        session.progress = progress
        metrics = self._trainer.training_epoch()
        if session.progress is progress and progress.batch < len(self._run.train_loader):
            msg = (
                f"{type(self._trainer).__name__}.training_epoch trained no batch; expected it to "
                "call super().training_epoch(), which trains in JAX"
            )
            raise RuntimeError(msg)
        return session.state, metrics, session.progress

    def evaluate(self, state: TrainState, progress: Progress) -> Metrics:
        """Call ``trainer.evaluation_epoch(trainer.eval_dataloader)``."""
        self._session.state, self._session.progress = self._session.merged(state), progress
        with self._run.request.callback.evaluating():
            return self._trainer.evaluation_epoch(self._trainer.eval_dataloader)

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Call ``trainer.update_learning_rate(eval_metrics)`` and apply the rate that it sets."""
        self._trainer.update_learning_rate(eval_metrics)
        state = self._session.handed_on(state)
        state, schedule_state = next_epoch(self._run, state, progress, eval_metrics)
        link = self._session.link
        if link is not None and link.is_current():
            # The loop has just put its own rate into the state, so the groups' has to return
            # even if it is the one of the last step.
            state = link.pushed(state) if link.holds_rate else link.sync(state)
        if link is not None and link.holds_rate:
            schedule_state = {"learning_rate": link.learning_rate}
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
        del block  # always waits: the caller of Trainer.save needs a complete folder
        session = self._session
        session.state = session.caught_up(session.merged(state))
        session.progress = progress
        session.due_save = DueSave(metric)
        try:
            return self._trainer.save(epoch)
        finally:
            session.due_save = None
