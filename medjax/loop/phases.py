"""The phases of an epoch: what the loop calls in order, and what each does in a run of medjax."""

from __future__ import annotations

from typing import Protocol

import jax
import numpy as np

from medjax import sharding
from medjax.checkpoint.progress import Progress
from medjax.data import Batches
from medjax.loop.ahead import compile_ahead
from medjax.loop.epochs import (
    Metrics,
    Span,
    evaluation_epoch,
    training_epoch,
    update_learning_rate,
)
from medjax.loop.outside import Outside
from medjax.loop.run import Run
from medjax.loop.save import save
from medjax.loop.scores import Scores
from medjax.metrics.mean import Mean
from medjax.runtime import Compilation
from medjax.runtime.traces import around_traces
from medjax.schedules import ScheduleState
from medjax.state import EpochLoss, TrainState


class Save(Protocol):
    """Saves a checkpoint."""

    def __call__(
        self,
        state: TrainState,
        progress: Progress,
        *,
        epoch: int,
        metric: float | None,
        block: bool = False,
    ) -> str:
        """Save a checkpoint and return its folder.

        Parameters
        ----------
        state, progress
            What to save.
        epoch : int
            Epoch in the name of the folder.
        metric : float or None
            Value of the checkpoint metric; None within an epoch.
        block : bool
            Whether to wait until the checkpoint is complete.
        """
        ...


class Phases(Protocol):
    """The phases of an epoch, in the order in which the loop calls them."""

    def train(self, state: TrainState, progress: Progress) -> tuple[TrainState, Metrics, Progress]:
        """Train for the rest of the epoch of `progress`."""
        ...

    def evaluate(self, state: TrainState, progress: Progress) -> Metrics:
        """Evaluate the state; called only if the run has evaluation data."""
        ...

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Return the state that the next epoch starts from, and that of the schedule."""
        ...

    @property
    def save(self) -> Save:
        """Saves a checkpoint."""
        ...


class RunPhases:
    """The phases of a run of medjax.

    Parameters
    ----------
    run : Run
        The run.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._is_ahead = False
        self._outside = Outside(run.read_outside)
        self._former: list[Compilation] = []

    @property
    def compilations(self) -> list[Compilation]:
        """The compilations of all programs that were used."""
        return [*self._former, *self._run.compilations]

    def train(self, state: TrainState, progress: Progress) -> tuple[TrainState, Metrics, Progress]:
        """Train for the rest of the epoch, saving meanwhile when that is due."""
        if self._outside.has_changed():
            self._renew(state)
        with around_traces(self._outside.tracing):
            if not self._is_ahead:
                self._is_ahead = True
                compile_ahead(self._run, state, progress)
            result = train_rest(self._run, state, progress, self.save)
        self._look_back(f"the training of epoch {progress.epoch}", result[0])
        return result

    def evaluate(self, state: TrainState, progress: Progress) -> Metrics:
        """Evaluate the state on the evaluation data."""
        assert self._run.eval_loader is not None
        with self._run.request.callback.evaluating(), around_traces(self._outside.tracing):
            metrics = evaluate_state(self._run, self._run.eval_loader, state, progress, self.save)
        self._look_back(f"the evaluation of epoch {progress.epoch}", state)
        return metrics

    def _look_back(self, phase: str, state: TrainState) -> None:
        """Warn if what programs read from outside has changed within a phase, and renew them."""
        if self._outside.has_changed():
            self._outside.warn(phase)
            # Some were perhaps traced after the change: they are not what they are kept for.
            self._run.request.component.forget("steps")
            self._renew(state)

    def _renew(self, state: TrainState) -> None:
        self._former = self.compilations
        self._run = self._run.renewed(self._run, state)

    def next_epoch(
        self, state: TrainState, progress: Progress, eval_metrics: Metrics
    ) -> tuple[TrainState, ScheduleState]:
        """Update the learning rate and start the loss of the next epoch."""
        return next_epoch(self._run, state, progress, eval_metrics)

    def save(
        self,
        state: TrainState,
        progress: Progress,
        *,
        epoch: int,
        metric: float | None,
        block: bool = False,
    ) -> str:
        """Save a checkpoint of the run."""
        run = self._run
        progress = run.with_callbacks(progress)
        return save(
            run.store, run.request, state, progress, epoch=epoch, metric=metric, block=block
        )


def train_rest(
    run: Run, state: TrainState, progress: Progress, save: Save
) -> tuple[TrainState, Metrics, Progress]:
    """Train for the rest of the epoch of `progress`.

    Parameters
    ----------
    run : Run
        The run.
    state, progress
        Where it is.
    save : Save
        Called within the epoch, at the interval of the options or when the run is preempted.
    """
    config, options = run.request.config, run.request.options
    is_last = progress.epoch == run.plan.nb_epochs
    stop = run.plan.last_stop if is_last else len(run.train_loader)
    alone = jax.process_count() == 1
    if progress.stop_reason is not None and alone and int(state.pending) == 0:
        stop = progress.batch  # it was stopped there, then interrupted
    scores = run.scores(progress.columns) if config.do_metrics_in_training else None
    nb_before = _nb_seen(state) - progress.batch

    def after_batch(state: TrainState, number: int) -> None:
        preempted = run.preemption.requested()
        interval = options.save_interval_steps
        due = interval is not None and number % interval == 0 and number < stop
        if not (preempted or due) or int(state.stopped_at) >= 0:
            return  # a state that has met its NaN is not saved; the epoch is about to raise
        position = _at(progress, number, scores)
        path = save(state, position, epoch=progress.epoch, metric=None, block=preempted)
        if preempted:
            run.preemption.stop(path)

    state, metrics = training_epoch(
        state,
        run.train_loader,
        run.train_step,
        Span(progress.epoch, progress.batch, stop),
        groups=run.groups,
        callback=run.request.callback,
        scores=scores,
        after_batch=after_batch,
    )
    if options.loss_arithmetic == "medkit":
        metrics["loss"] /= config.gradient_accumulation_steps
    # A callback may have ended the epoch before its last batch.
    return state, metrics, _at(progress, _nb_seen(state) - nb_before, scores)


def evaluate_state(
    run: Run, loader: Batches, state: TrainState, progress: Progress, save: Save
) -> Metrics:
    """Evaluate a state.

    Parameters
    ----------
    run : Run
        The run.
    loader : Batches
        The evaluation data.
    state, progress
        What to evaluate and, if the run is preempted meanwhile, to save as they are before it.
    save : Save
        Saves them in this case.
    """

    def after_batch() -> None:
        if run.preemption.requested():
            path = save(state, progress, epoch=progress.epoch, metric=None, block=True)
            run.preemption.stop(path)

    return evaluation_epoch(
        state.variables,
        loader,
        run.eval_step,
        callback=run.request.callback,
        scores=run.scores(),
        after_batch=after_batch,
    )


def next_epoch(
    run: Run, state: TrainState, progress: Progress, eval_metrics: Metrics
) -> tuple[TrainState, ScheduleState]:
    """Update the learning rate after the epoch of `progress`, and start new sums for the next.

    Parameters
    ----------
    run : Run
        The run.
    state, progress
        Where it is.
    eval_metrics : dict
        Metrics of the evaluation of the epoch; empty without one.

    Returns
    -------
    state : TrainState
        The state that the next epoch starts from.
    schedule_state : dict
        The state of the schedule in the next epoch.
    """
    request = run.request
    metric = request.config.metric_to_track_lr
    schedule_state = update_learning_rate(
        request.schedule, progress.schedule, progress.epoch, eval_metrics, metric
    )
    fresh = {
        "learning_rate": np.float32(schedule_state["learning_rate"]),
        "losses": Mean.empty(),
    }
    if isinstance(state.losses, EpochLoss):
        fresh["losses"] = jax.device_get(state.losses).next_epoch()
    fresh = sharding.put(fresh, sharding.replicated(request.mesh))
    return state.replace(**fresh), schedule_state


def _nb_seen(state: TrainState) -> int:
    """Return the number of batches that a state has seen, those that were left out included."""
    return int(state.batch_step) + int(state.skipped)


def _at(progress: Progress, batch: int, scores: Scores | None) -> Progress:
    return progress._replace(batch=batch, columns={} if scores is None else scores.columns())
