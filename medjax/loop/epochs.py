"""One epoch of training, one of evaluation, and the learning rate between epochs.

Within an epoch the host only dispatches steps; what it knows of them it reads behind them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from medjax import sharding
from medjax.callbacks import as_callback_list
from medjax.compiled import Step, explaining_memory
from medjax.component import Variables
from medjax.data import Batch, Batches
from medjax.monitor import LossSum, NonFiniteError, StepMonitor
from medjax.schedules import Schedule, ScheduleState
from medjax.scores import Scores
from medjax.state import TrainState
from medjax.step import StepStats, stacked


def training_epoch(
    state: TrainState,
    loader: Batches,
    train_step: Step,
    *,
    epoch: int,
    start: int = 0,
    stop: int | None = None,
    steps_per_dispatch: int = 1,
    callback: Any = None,
    scores: Scores | None = None,
    after_batch: Callable[[TrainState, int], None] | None = None,
) -> tuple[TrainState, dict[str, float]]:
    """Train on the batches of an epoch.

    Parameters
    ----------
    state : TrainState
        Taken over: its buffers are reused.
    loader : Batches
        The training data.
    train_step : Step
        From `make_train_step`.
    epoch : int
        Number of the epoch, from 1; decides the order.
    start, stop : int, optional
        First batch, and batch to stop before; by default the whole epoch.
    steps_per_dispatch : int
        Batches trained on in one call, where they have the same shape; 1 with `scores`. Calls end
        at multiples of it, so that a resumed epoch makes the same ones.
    callback : TrainerCallback or sequence of them, optional
        Gets on_step_begin and on_step_end.
    scores : Scores, optional
        Collects the outputs; `train_step` must return them then.
    after_batch : callable, optional
        Called after each dispatch with the state and the number of batches done.

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
    callback = as_callback_list(callback)
    stop = len(loader) if stop is None else stop
    seen = int(state.batch_step) + int(state.skipped)
    flags = sharding.put((np.asarray(False), np.asarray(True)), state.learning_rate.sharding)
    monitor = StepMonitor()

    def check() -> None:
        if monitor.stopped_at >= 0:
            number = start + monitor.stopped_at - seen
            rate = monitor.learning_rate or 0.0
            raise NonFiniteError(epoch, number, rate, loader.indices(epoch, number))

    batches = loader.batches(epoch, start)
    group: list[Batch] = []
    with explaining_memory(train_step), contextlib.closing(batches):
        for number in range(start, stop):
            callback.on_step_begin(number, nb_batches=stop, phase="train")
            group.append(next(batches))
            is_last = number + 1 == stop
            if (number + 1) % steps_per_dispatch and not is_last:
                continue
            state, stats = _dispatch(train_step, state, group, flags, flush=is_last)
            monitor.follow(stats)
            if scores is not None:
                assert stats.outputs is not None
                scores.add(stats.outputs, group[-1], stats.taken)
            for done in range(number + 1 - len(group), number + 1):
                callback.on_step_end(done, nb_batches=stop, phase="train", loss=monitor.loss)
            group.clear()
            check()
            if after_batch is not None:
                after_batch(state, number + 1)
            alone = jax.process_count() == 1  # several processes agree on a stop between epochs
            if callback.stop_reason is not None and alone and int(state.pending) == 0:
                break  # with a whole update made, as in a run that goes on
        monitor.drain()
    check()
    metrics = {"loss": float(jax.device_get(state.losses).compute())}
    return state, metrics | (scores.compute() if scores is not None else {})


def _dispatch(
    train_step: Step, state: TrainState, group: list[Batch], flags: Any, *, flush: bool
) -> tuple[TrainState, StepStats]:
    """Run the steps of a group of batches, in one call if they have one shape."""
    *before, last = (batch.device for batch in group)
    together = stacked([*before, last]) if before else None
    if together is not None:
        done: tuple[TrainState, StepStats] = train_step(state, together, flags[flush])
        return done
    for batch in before:
        state, _ = train_step(state, batch, flags[False])
    alone: tuple[TrainState, StepStats] = train_step(state, last, flags[flush])
    return alone


def evaluation_epoch(
    variables: Variables,
    loader: Batches,
    eval_step: Step,
    *,
    callback: Any = None,
    scores: Scores | None = None,
    after_batch: Callable[[], None] | None = None,
) -> dict[str, float]:
    """Evaluate on the batches of a loader.

    Parameters
    ----------
    variables : dict
        ``state.variables``; left as they are.
    loader : Batches
        The evaluation data.
    eval_step : Step
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
    callback = as_callback_list(callback)
    losses = LossSum()
    batches = loader.batches(epoch=0)
    with explaining_memory(eval_step), contextlib.closing(batches):
        for number in range(len(loader)):
            # First the callback: what it sets may decide how a batch is prepared.
            callback.on_step_begin(number, nb_batches=len(loader), phase="eval")
            batch = next(batches)
            batch_loss, outputs = eval_step(variables, batch.device)
            losses.add(batch_loss)
            if scores is not None:
                scores.add(outputs, batch)
            callback.on_step_end(number, nb_batches=len(loader), phase="eval")
            if after_batch is not None:
                after_batch()
        loss = losses.compute()
    return {"loss": loss} | (scores.compute() if scores is not None else {})


def update_learning_rate(
    schedule: Schedule,
    schedule_state: ScheduleState,
    epoch: int,
    eval_metrics: dict[str, float],
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
        Its evaluation metrics.
    metric : str
        Name of the metric a reduce-on-plateau schedule follows.

    Raises
    ------
    ValueError
        If the schedule needs the metric and it is not there.
    """
    if schedule.needs_metric and metric not in eval_metrics:
        msg = (
            "Learning scheduler needs an eval metric to update the learning rate, "
            f"{metric!r} was not found; the evaluation gave {sorted(eval_metrics)}"
        )
        raise ValueError(msg)
    return schedule.update(schedule_state, epoch, eval_metrics.get(metric))
