"""Run: everything that stays the same while a run goes on, and the phases of an epoch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.callbacks import CallbackList
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.space import bytes_of
from medjax.compiled import Compilation, Step
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import Batch, Batches
from medjax.loop.epochs import evaluation_epoch, training_epoch, update_learning_rate
from medjax.loop.plan import Plan
from medjax.loop.save import save
from medjax.metrics.computer import MetricsComputer
from medjax.metrics.mean import Mean
from medjax.preemption import Preemption
from medjax.progress import Progress
from medjax.schedules import Schedule, ScheduleState
from medjax.scores import Scores
from medjax.state import TrainState

Metrics = dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """The parts of a run and what is done with them; all that changes is passed as values."""

    component: TrainableComponent
    config: TrainerConfig
    options: Options
    plan: Plan
    mesh: Mesh
    schedule: Schedule
    train_loader: Batches
    eval_loader: Batches | None
    train_step: Step
    eval_step: Step
    metrics_computer: MetricsComputer | None
    unpad: Callable[[Any, Batch], BatchData]
    callback: CallbackList
    store: CheckpointStore
    preemption: Preemption
    known_compilations: tuple[int, int] = (0, 0)

    @property
    def compilations(self) -> list[Compilation]:
        """The compilations of the training and the evaluation step in this run."""
        steps = zip((self.train_step, self.eval_step), self.known_compilations, strict=True)
        return [made for step, known in steps for made in step.compilations[known:]]

    @property
    def steps_per_dispatch(self) -> int:
        """Batches trained on in one call; 1 if each step's outputs are wanted."""
        return 1 if self.config.do_metrics_in_training else self.options.steps_per_dispatch

    def check_space(self, state: TrainState, progress: Progress) -> None:
        """Check that the output folder has room for the checkpoints that are to come.

        Raises
        ------
        CheckpointError
            If it has not.
        """
        nb_saves = self.plan.nb_saves(
            *(len(self.train_loader), self.config, self.options),
            epoch=progress.epoch,
            batch=progress.batch,
        )
        if progress.stop_reason is not None:
            nb_saves = int(progress.batch > 0)  # the epoch that was cut short is still saved
        self.store.check_space(
            self.checkpoint_bytes(state), nb_saves, has_best=self.eval_loader is not None
        )

    def checkpoint_bytes(self, state: TrainState) -> int:
        """Return the bytes of a checkpoint: the state, and the weights in the component's files."""
        return bytes_of(state) + bytes_of(state.variables)

    def train_phase(
        self, state: TrainState, progress: Progress
    ) -> tuple[TrainState, Metrics, Progress]:
        """Train for the rest of the epoch of `progress`, saving on the way when asked to."""
        is_last = progress.epoch == self.plan.nb_epochs
        stop = self.plan.last_stop if is_last else len(self.train_loader)
        alone = jax.process_count() == 1
        if progress.stop_reason is not None and alone and int(state.pending) == 0:
            stop = progress.batch  # it was stopped there, then interrupted
        in_training = self.config.do_metrics_in_training
        scores = self.scores(progress.columns) if in_training else None

        def after_batch(state: TrainState, number: int) -> None:
            preempted = self.preemption.requested()
            interval = self.options.save_interval_steps
            due = interval is not None and number % interval == 0 and number < stop
            if not (preempted or due) or int(state.stopped_at) >= 0:
                return  # a state that has met its NaN is not saved; the epoch is about to raise
            here = _at(progress, number, scores)
            saved = self.save(state, here, epoch=progress.epoch, metric=None, block=preempted)
            if preempted:
                self.preemption.stop(saved)

        state, metrics = training_epoch(
            *(state, self.train_loader, self.train_step),
            epoch=progress.epoch,
            start=progress.batch,
            stop=stop,
            steps_per_dispatch=self.steps_per_dispatch,
            callback=self.callback,
            scores=scores,
            after_batch=after_batch,
        )
        if self.options.loss_arithmetic == "medkit":
            metrics["loss"] /= self.config.gradient_accumulation_steps
        return state, metrics, _at(progress, stop, scores)

    def eval_phase(self, state: TrainState, progress: Progress) -> Metrics:
        """Evaluate the state; preempted meanwhile, save it as it is before the evaluation."""
        assert self.eval_loader is not None

        def after_batch() -> None:
            if self.preemption.requested():
                saved = self.save(state, progress, epoch=progress.epoch, metric=None, block=True)
                self.preemption.stop(saved)

        return evaluation_epoch(
            *(state.variables, self.eval_loader, self.eval_step),
            callback=self.callback,
            scores=self.scores(),
            after_batch=after_batch,
        )

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Return the state the next epoch starts from and that of the schedule."""
        schedule_state = update_learning_rate(
            *(self.schedule, progress.schedule, progress.epoch),
            *(eval_metrics, self.config.metric_to_track_lr),
        )
        fresh = (np.float32(schedule_state["learning_rate"]), Mean.empty())
        rate, losses = sharding.put(fresh, sharding.replicated(self.mesh))
        return state.replace(learning_rate=rate, losses=losses), schedule_state

    def save(
        self,
        state: TrainState,
        progress: Progress,
        *,
        epoch: int,
        metric: float | None,
        block: bool = False,
    ) -> str:
        """Save a checkpoint and return its folder; with `block`, once it is complete."""
        return save(
            *(self.store, self.component, self.config, state, self.with_callbacks(progress)),
            epoch=epoch,
            metric=metric,
            callback=self.callback,
            block=block,
        )

    def with_callbacks(self, progress: Progress) -> Progress:
        """Return `progress` with what the callbacks have to remember."""
        return progress._replace(
            callbacks=self.callback.state_dict(),
            stop_reason=self.callback.stop_reason,
            stopped_by=self.callback.stopped_by,
        )

    def scores(self, columns: dict[str, list[Any]] | None = None) -> Scores | None:
        """Return a new collection of scores, None without a metrics computer."""
        if self.metrics_computer is None:
            return None
        return Scores(self.metrics_computer, self.unpad, columns)


def _at(progress: Progress, batch: int, scores: Scores | None) -> Progress:
    return progress._replace(batch=batch, columns={} if scores is None else scores.columns())
