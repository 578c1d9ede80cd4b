"""Learning-rate schedules: by step or by epoch over optax, and reduce-on-plateau by torch's rules.

A `Schedule` has a part that lives on the host and changes at the end of an epoch, and a part that
is traced into the step. The rate the host sets is an array of the training state, so changing it
compiles nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

ScheduleState = dict[str, Any]
"""JSON-ready record of a schedule between epochs; ``learning_rate`` is the rate the host sets."""


class Schedule(NamedTuple):
    """The learning rate as a function of the epoch (host) and of the update (traced).

    Attributes
    ----------
    init : callable
        ``init(learning_rate) -> ScheduleState``.
    update : callable
        ``update(state, epoch, metric) -> ScheduleState`` at the end of `epoch`, counted from 1;
        `metric` is the evaluation metric to follow, or None.
    rate : callable
        ``rate(step, learning_rate)``, traced: the rate of update `step`, counted from 0 (int32,
        shape ()), given the rate of the host (float32, shape ()).
    needs_metric : bool
        Whether `update` needs the metric.
    mode : {"min", "max"} or None
        Whether lower or higher is better, where `update` compares the metric.
    resume : callable or None
        ``resume(saved) -> ScheduleState``: what becomes of a saved state, for a schedule that
        somebody else keeps. None lets `resumed` decide.
    """

    init: Callable[[float], ScheduleState]
    update: Callable[[ScheduleState, int, float | None], ScheduleState]
    rate: Callable[[jax.Array, jax.Array], jax.Array]
    needs_metric: bool = False
    mode: str | None = None
    resume: Callable[[ScheduleState], ScheduleState] | None = None


def _init(learning_rate: float) -> ScheduleState:
    return {"learning_rate": float(learning_rate)}


def _keep(state: ScheduleState, epoch: int, metric: float | None) -> ScheduleState:
    del epoch, metric
    return state


def _host_rate(step: jax.Array, learning_rate: jax.Array) -> jax.Array:
    del step
    return learning_rate


def constant() -> Schedule:
    """Return the schedule that keeps the configured learning rate."""
    return Schedule(_init, _keep, _host_rate)


def by_step(schedule: optax.Schedule) -> Schedule:
    """Return a schedule that asks `schedule` for the rate of every update.

    Parameters
    ----------
    schedule : callable
        Any optax schedule: the number of updates done (int32 array) to the learning rate.

    Examples
    --------
    >>> schedule = by_step(optax.linear_schedule(1.0, 0.0, transition_steps=10))
    >>> float(schedule.rate(jnp.asarray(5), jnp.asarray(1.0)))
    0.5
    """
    return Schedule(_init, _keep, _RateByStep(schedule))


@dataclasses.dataclass(frozen=True, eq=False)
class _RateByStep:
    """The rate of an optax schedule."""

    schedule: optax.Schedule

    def __call__(self, step: jax.Array, learning_rate: jax.Array) -> jax.Array:
        del learning_rate
        return jnp.asarray(self.schedule(step), jnp.float32)


def by_epoch(schedule: optax.Schedule) -> Schedule:
    """Return a schedule that asks `schedule` for the rate of every epoch.

    Parameters
    ----------
    schedule : callable
        Any optax schedule, given the number of epochs done: 0 during the first epoch.

    Examples
    --------
    >>> schedule = by_epoch(optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.5))
    >>> schedule.update(schedule.init(1.0), 2, None)
    {'learning_rate': 0.25}
    """

    def init(learning_rate: float) -> ScheduleState:
        del learning_rate
        return _init(float(schedule(0)))

    def update(state: ScheduleState, epoch: int, metric: float | None) -> ScheduleState:
        del state, metric
        return _init(float(schedule(epoch)))

    return Schedule(init, update, _host_rate)


def reduce_on_plateau(
    mode: Literal["min", "max"] = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: Literal["rel", "abs"] = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Schedule:
    """Return a schedule that lowers the rate when a metric stops improving.

    Parameters
    ----------
    mode : {"min", "max"}
        Whether lower or higher is better.
    factor : float
        What the rate is multiplied by, below 1.
    patience : int
        Epochs without improvement that are let pass; the next one lowers the rate.
    threshold : float
        Least improvement that counts, relative to the best value or absolute.
    threshold_mode : {"rel", "abs"}
        How `threshold` is read.
    cooldown : int
        Epochs after a reduction during which none is counted.
    min_lr : float
        Rate below which it is not lowered.
    eps : float
        Changes of the rate smaller than this are not made.

    Raises
    ------
    ValueError
        If an argument is not allowed.

    References
    ----------
    The rules, their order and the defaults are those of ``torch.optim.lr_scheduler.
    ReduceLROnPlateau`` (PyTorch 2.13), decision for decision. A NaN is never an improvement.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"reduce_on_plateau: mode is {mode!r}; expected 'min' or 'max'")
    if threshold_mode not in ("rel", "abs"):
        msg = f"reduce_on_plateau: threshold_mode is {threshold_mode!r}; expected 'rel' or 'abs'"
        raise ValueError(msg)
    if not factor < 1.0:
        raise ValueError(f"reduce_on_plateau: factor is {factor!r}; expected a number below 1")
    sign = 1.0 if mode == "min" else -1.0

    def improves(metric: float, best: float) -> bool:
        relative = threshold_mode == "rel"
        bound = best * (1.0 - sign * threshold) if relative else best - sign * threshold
        return metric < bound if mode == "min" else metric > bound

    def init(learning_rate: float) -> ScheduleState:
        return {**_init(learning_rate), "best": sign * math.inf, "bad_epochs": 0, "cooldown": 0}

    def update(state: ScheduleState, epoch: int, metric: float | None) -> ScheduleState:
        del epoch
        if metric is None:
            raise ValueError("reduce_on_plateau: the metric is None; expected a number")
        state = dict(state)
        if improves(float(metric), state["best"]):
            state |= {"best": float(metric), "bad_epochs": 0}
        else:
            state["bad_epochs"] += 1
        if state["cooldown"] > 0:
            state |= {"cooldown": state["cooldown"] - 1, "bad_epochs": 0}
        if state["bad_epochs"] > patience:
            lowered = max(state["learning_rate"] * factor, min_lr)
            if state["learning_rate"] - lowered > eps:
                state["learning_rate"] = lowered
            state |= {"cooldown": cooldown, "bad_epochs": 0}
        return state

    return Schedule(init, update, _host_rate, needs_metric=True, mode=mode)


def with_warmup(schedule: Schedule, steps: int) -> Schedule:
    """Return `schedule` with its first `steps` updates scaled by 0, 1/steps, 2/steps, ...

    The factor multiplies whatever rate the schedule gives, so it combines with every schedule;
    the count of the schedule itself starts at the first update.

    Raises
    ------
    ValueError
        If `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"with_warmup: steps is {steps}; expected 0 or more")
    if steps == 0:
        return schedule

    def rate(step: jax.Array, learning_rate: jax.Array) -> jax.Array:
        factor = jnp.minimum(1.0, step / steps).astype(jnp.float32)
        return schedule.rate(step, learning_rate) * factor

    return schedule._replace(rate=rate)


def resumed(
    schedule: Schedule,
    saved: ScheduleState,
    learning_rate: float,
    epoch: int,
    *,
    same_rate: bool,
    same_metric: bool,
) -> ScheduleState:
    """Return the state with which a schedule goes on from a checkpoint.

    A schedule that follows no metric is a function of its settings and the epoch: it is computed
    again from what these are now. One that follows a metric keeps what it has seen and the rate it
    has come to, unless the configured rate was changed; of another metric it keeps the rate only.

    Parameters
    ----------
    schedule : Schedule
        The schedule.
    saved : dict
        Its state in the checkpoint, or that of another schedule.
    learning_rate : float
        The configured rate.
    epoch : int
        The epoch to go on with, from 1.
    same_rate, same_metric : bool
        Whether the configured rate, and the metric with its mode, are those of the checkpoint.

    Examples
    --------
    >>> plateau = reduce_on_plateau(patience=2)
    >>> seen = {"learning_rate": 0.01, "best": 0.5, "bad_epochs": 1, "cooldown": 0}
    >>> resumed(plateau, seen, 0.1, 4, same_rate=True, same_metric=True) == seen
    True
    >>> resumed(constant(), seen, 0.1, 4, same_rate=True, same_metric=True)
    {'learning_rate': 0.1}
    """
    if schedule.resume is not None:
        return schedule.resume(saved)
    state = schedule.init(learning_rate)
    if not schedule.needs_metric:
        for done in range(1, epoch):
            state = schedule.update(state, done, None)
        return state
    if not same_rate or not state.keys() <= saved.keys():
        return state
    if not same_metric:
        return {**state, "learning_rate": saved["learning_rate"]}
    return {name: saved[name] for name in state}


def as_schedule(schedule: Schedule | optax.Schedule | None) -> Schedule:
    """Return a `Schedule`: None is constant, an optax schedule is taken by step.

    Raises
    ------
    ValueError
        If `schedule` is none of these.
    """
    if schedule is None:
        return constant()
    if isinstance(schedule, Schedule):
        return schedule
    if callable(schedule):
        return by_step(schedule)
    msg = (
        f"schedule is {schedule!r}; expected an optax schedule, or one of medjax.schedules: "
        "by_step, by_epoch, reduce_on_plateau, with_warmup"
    )
    raise ValueError(msg)
