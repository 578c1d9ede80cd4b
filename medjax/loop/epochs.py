"""One epoch of training, one of evaluation, and the learning rate between epochs.

Within an epoch the host only dispatches steps; what it reads of them it reads some steps later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from medjax import sharding
from medjax.batch import BatchData
from medjax.callbacks import as_callback_list
from medjax.component import Variables
from medjax.data import Batch, Batches
from medjax.loop.monitor import LossSum, NonFiniteError, StepMonitor
from medjax.loop.scores import Scores
from medjax.runtime.jit import explaining_memory
from medjax.schedules import Schedule, ScheduleState
from medjax.state import TrainState
from medjax.step import EvalStep, StepStats, TrainStep, stack, with_update_due

Metrics = dict[str, float]
"""Loss and scores by name."""


class Span(NamedTuple):
    """Batches of an epoch.

    Attributes
    ----------
    epoch : int
        Number of the epoch, from 1; decides the order.
    start : int
        First batch, from 0.
    stop : int or None
        Batch to stop before; None for the end of the epoch.
    """

    epoch: int
    start: int = 0
    stop: int | None = None


class Groups(NamedTuple):
    """Groups of batches that are trained on in one call, where they have the same shape.

    Attributes
    ----------
    train_steps : TrainStep
        From `make_train_steps`.
    size : int
        Batches in a group. Groups end at multiples of it, so that a resumed epoch makes the same
        ones.
    """

    train_steps: TrainStep
    size: int


def training_epoch(
    state: TrainState,
    loader: Batches,
    train_step: TrainStep,
    span: Span,
    *,
    groups: Groups | None = None,
    callback: object = None,
    scores: Scores | None = None,
    after_batch: Callable[[TrainState, int], None] | None = None,
) -> tuple[TrainState, Metrics]:
    """Train on the batches of an epoch.

    Parameters
    ----------
    state : TrainState
        Taken over: its buffers are reused.
    loader : Batches
        The training data.
    train_step : TrainStep
        From `make_train_step`.
    span : Span
        Which batches: ``Span(epoch)`` for an entire epoch. With its last batch an update is made,
        even if fewer batches than it takes are waiting.
    groups : Groups, optional
        How to train on several batches in one call; not with `scores`.
    callback : TrainerCallback or sequence of them, optional
        Gets on_step_begin and on_step_end.
    scores : Scores, optional
        Collects the outputs, which `train_step` must return in this case.
    after_batch : callable, optional
        Called after each call of a step with the state and the number of batches done.

    Returns
    -------
    state : TrainState
        With the loss of the epoch in `losses`.
    metrics : dict
        ``{"loss": ...}`` and the scores.

    Raises
    ------
    NonFiniteError
        If the loss or a gradient was not finite (see `Options.on_non_finite`).
    OutOfMemoryError
        If a device had no memory left for a step.
    """
    callbacks = as_callback_list(callback)
    stop = len(loader) if span.stop is None else span.stop
    size = 1 if groups is None else groups.size
    dispatch = _Dispatch(state, train_step, groups)
    monitor = StepMonitor()
    batches = loader.batches(span.epoch, span.start)
    first = span.start - int(state.batch_step) - int(state.skipped)
    group: list[Batch] = []
    with explaining_memory(*dispatch.steps), contextlib.closing(batches):
        for number in range(span.start, stop):
            callbacks.on_step_begin(number, nb_batches=stop, phase="train")
            group.append(next(batches))
            is_last = number + 1 == stop
            if (number + 1) % size and not is_last:
                continue
            state, stats = dispatch(state, group, is_last=is_last)
            monitor.follow(stats)
            if scores is not None:
                assert stats.outputs is not None
                scores.add(stats.outputs, group[-1], stats.taken)
            for done in range(number + 1 - len(group), number + 1):
                callbacks.on_step_end(done, nb_batches=stop, phase="train", loss=monitor.loss)
            group.clear()
            _check_finite(monitor, loader, span.epoch, first)
            if after_batch is not None:
                after_batch(state, number + 1)
            alone = jax.process_count() == 1  # several processes agree on a stop between epochs
            if callbacks.stop_reason is not None and alone and int(state.pending) == 0:
                break  # with a complete update, as in a run that goes on
        monitor.drain()
    _check_finite(monitor, loader, span.epoch, first)
    metrics = {"loss": float(jax.device_get(state.losses).compute())}
    return state, metrics | (scores.compute() if scores is not None else {})


class _Dispatch:
    """Runs the steps of a group of batches, in one call if the batches have one shape."""

    def __init__(self, state: TrainState, train_step: TrainStep, groups: Groups | None) -> None:
        self._train_step = train_step
        self._groups = groups
        # Put on the device once: one scalar for most batches, another for the last.
        marks = (np.asarray(False), np.asarray(True))
        self._marks = sharding.put(marks, state.learning_rate.sharding)

    @property
    def steps(self) -> list[TrainStep]:
        """The steps it may run."""
        several = [] if self._groups is None else [self._groups.train_steps]
        return [self._train_step, *several]

    def __call__(
        self, state: TrainState, group: list[Batch], *, is_last: bool
    ) -> tuple[TrainState, StepStats]:
        """Return the state after the group and the stats of its last step."""
        batches = [with_update_due(batch.device, self._marks[False]) for batch in group[:-1]]
        batches.append(with_update_due(group[-1].device, self._marks[is_last]))
        if self._groups is not None and len(batches) > 1:
            together = stack(batches)
            if together is not None:
                return self._groups.train_steps(state, together)
        for batch in batches[:-1]:
            state, _ = self._train_step(state, batch)
        return self._train_step(state, batches[-1])


def _check_finite(monitor: StepMonitor, loader: Batches, epoch: int, first: int) -> None:
    """Raise NonFiniteError once a step is known to have stopped training."""
    if monitor.stopped_at >= 0:
        number = first + monitor.stopped_at
        rate = monitor.learning_rate or 0.0
        raise NonFiniteError(epoch, number, rate, loader.indices(epoch, number))


def evaluation_epoch(
    variables: Variables,
    loader: Batches,
    eval_step: EvalStep,
    *,
    callback: object = None,
    scores: Scores | None = None,
    after_batch: Callable[[], None] | None = None,
) -> Metrics:
    """Evaluate on the batches of a loader.

    Parameters
    ----------
    variables : dict
        ``state.variables``; left as they are.
    loader : Batches
        The evaluation data.
    eval_step : EvalStep
        From `make_eval_step`.
    callback, scores, after_batch
        As for `training_epoch`; `after_batch` gets no argument.

    Returns
    -------
    dict
        ``{"loss": ...}`` and the scores.

    Raises
    ------
    OutOfMemoryError
        If a device had no memory left for a step.
    """
    callbacks = as_callback_list(callback)
    losses = LossSum()
    batches = loader.batches(epoch=0)
    with explaining_memory(eval_step), contextlib.closing(batches):
        for number in range(len(loader)):
            # The callback comes first: what it sets may decide how the batch is prepared.
            callbacks.on_step_begin(number, nb_batches=len(loader), phase="eval")
            batch = next(batches)
            batch_loss, outputs = eval_step(variables, batch.device)
            losses.add(batch_loss)
            if scores is not None:
                scores.add(outputs or BatchData(), batch)
            callbacks.on_step_end(number, nb_batches=len(loader), phase="eval")
            if after_batch is not None:
                after_batch()
        loss = losses.compute()
    return {"loss": loss} | (scores.compute() if scores is not None else {})


def update_learning_rate(
    schedule: Schedule,
    schedule_state: ScheduleState,
    epoch: int,
    eval_metrics: Metrics,
    metric: str,
) -> ScheduleState:
    """Return the state of the schedule after an epoch.

    Parameters
    ----------
    schedule : Schedule
        The schedule.
    schedule_state : dict
        Its state during the epoch.
    epoch : int
        The epoch that ended, from 1.
    eval_metrics : dict
        Metrics of its evaluation.
    metric : str
        Name of the metric that a reduce-on-plateau schedule follows.

    Raises
    ------
    ValueError
        If the schedule needs the metric and the evaluation did not give it.
    """
    if schedule.needs_metric and metric not in eval_metrics:
        msg = (
            "Learning scheduler needs an eval metric to update the learning rate, "
            f"{metric!r} was not found; the evaluation gave {sorted(eval_metrics)}"
        )
        raise ValueError(msg)
    return schedule.update(schedule_state, epoch, eval_metrics.get(metric))
