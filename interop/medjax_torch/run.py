"""A training run: medjax's, with the Trainer's own methods as its phases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from medjax.checkpoint.space import bytes_of
from medjax.loop.run import Metrics, Run
from medjax.loop.save import save
from medjax.progress import Progress
from medjax.schedules import ScheduleState
from medjax.state import TrainState
from medjax_torch.broken import check_evaluation, explaining
from medjax_torch.checkpoints import write_torch_files
from medjax_torch.feed import Feed
from medjax_torch.flags import with_flags
from medjax_torch.preparation import Preparation
from medjax_torch.session import Session


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
        self.session.state = self.session.handed_on(state)
        self.session.progress = progress
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
        self.session.state, self.session.progress = self.session.merged(state), progress
        metrics: Metrics = self.trainer.evaluation_epoch(self.trainer.eval_dataloader)
        return metrics

    def eval_here(self, loader: Any) -> Metrics:
        """Evaluate the state of the session on the batches of a DataLoader."""
        feed = Feed(loader, self.preparation, train=False)
        run = dataclasses.replace(self, eval_loader=feed)
        metrics = Run.eval_phase(run, self.session.state, self.session.progress)
        converted, variables = self.session.converted, self.session.state.variables
        check_evaluation(converted, variables, metrics["loss"], feed.batches(epoch=0))
        return metrics

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Call ``trainer.update_learning_rate(eval_metrics)`` and put in force what it set."""
        self.trainer.update_learning_rate(eval_metrics)
        state = self.session.handed_on(state)
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
        session.state = session.caught_up(session.merged(state))
        session.progress, session.metric = progress, metric
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

        progress = with_flags(self.with_callbacks(session.progress), session.converted)
        return save(
            *(self.store, self.component, self.config, session.state, progress),
            epoch=epoch,
            metric=session.metric,
            callback=self.callback,
            block=True,
            write_files=write_files,
        )
