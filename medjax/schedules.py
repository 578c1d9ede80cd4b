"""Learning-rate schedules: those of optax by step or by epoch, and torch's reduce-on-plateau.

One part of a `Schedule` runs on the host and changes the rate at the end of an epoch; the other
part is traced into the step. The rate set by the host is an array in the training state, so
changing it does not recompile the step.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "Schedule",
    "ScheduleState",
    "as_schedule",
    "by_epoch",
    "by_step",
    "constant",
    "reduce_on_plateau",
    "resumed",
    "with_warmup",
]

ScheduleState = dict[str, Any]
"""State of a schedule between epochs: what JSON can hold, by name; ``learning_rate``, a number, is
set by the host."""


class Schedule(NamedTuple):
    """The learning rate as a function of the epoch (on the host) and of the update (traced).

    Attributes
    ----------
    init : callable
        ``init(learning_rate) -> ScheduleState``.
    update : callable
        ``update(state, epoch, metric) -> ScheduleState`` is called at the end of `epoch`, counted
        from 1; `metric` is the evaluation metric to monitor, or None.
    rate : callable
        ``rate(step, learning_rate)``, traced, returns the rate of update `step`, counted from 0
        (int32, shape ()), when the host has set `learning_rate` (float32, shape ()).
    needs_metric : bool
        Whether `update` needs the metric.
    mode : {"min", "max"} or None
        Whether lower or higher is better, if `update` compares the metric.
    resume : callable or None
        ``resume(saved) -> ScheduleState`` returns the state to resume with, for a schedule whose
        real state is kept elsewhere, as torch's are. If None, `resumed` applies its rules.

    Examples
    --------
    >>> schedule = constant()
    >>> state = schedule.init(0.5)
    >>> float(schedule.rate(jnp.asarray(0), jnp.asarray(state["learning_rate"])))
    0.5
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
    """Return the schedule that keeps the configured learning rate.

    Examples
    --------
    >>> constant().init(1e-3)
    {'learning_rate': 0.001}
    """
    return Schedule(_init, _keep, _host_rate)


def by_step(schedule: optax.Schedule) -> Schedule:
    """Return a schedule that gets the rate of every update from an optax schedule.

    Parameters
    ----------
    schedule : callable
        Any optax schedule: maps the number of updates done (int32 array) to the learning rate.

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
    """Return a schedule that gets the rate of every epoch from an optax schedule.

    Parameters
    ----------
    schedule : callable
        Any optax schedule: maps the number of epochs done, 0 during the first epoch, to the
        learning rate.

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
    r"""Return a schedule that lowers the rate when a metric stops improving.

    With the best metric so far :math:`b` and the threshold :math:`\tau`, a metric :math:`m` is an
    improvement if

    ======  =========================  ===================
    mode    ``"rel"``                  ``"abs"``
    ======  =========================  ===================
    min     :math:`m < b (1 - \tau)`   :math:`m < b - \tau`
    max     :math:`m > b (1 + \tau)`   :math:`m > b + \tau`
    ======  =========================  ===================

    NaN is never an improvement. After more than `patience` epochs in a row without improvement,
    the rate becomes :math:`\max(\textit{factor} \cdot \textit{rate}, \textit{min\_lr})`.

    Parameters
    ----------
    mode : {"min", "max"}
        Whether lower or higher is better.
    factor : float
        Factor by which the rate is multiplied; below 1.
    patience : int
        Number of epochs without improvement that are tolerated; the next one lowers the rate.
    threshold : float
        A change counts as an improvement only if it is larger than this.
    threshold_mode : {"rel", "abs"}
        Whether `threshold` is relative to the best value or absolute.
    cooldown : int
        Number of epochs after a reduction that do not count as without improvement.
    min_lr : float
        Smallest rate.
    eps : float
        Reductions of the rate that are not larger than this are not made.

    Raises
    ------
    ValueError
        If an argument is not allowed.

    References
    ----------
    The rules, their order and the defaults are those of
    ``torch.optim.lr_scheduler.ReduceLROnPlateau`` (PyTorch 2.13).

    Examples
    --------
    >>> schedule = reduce_on_plateau(factor=0.5, patience=1)
    >>> state = schedule.init(1.0)
    >>> for epoch, loss in enumerate([0.9, 0.9, 0.9], start=1):
    ...     state = schedule.update(state, epoch, loss)
    >>> state["learning_rate"]
    0.5
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
    r"""Return `schedule` with a linear warm-up over the first `steps` updates.

    The rate of update :math:`t`, counted from 0, is multiplied by :math:`\min(1, t /
    \textit{steps})`, whatever the schedule is. The schedule itself does not start later: it counts
    the updates of the warm-up.

    Raises
    ------
    ValueError
        If `steps` is negative.

    Examples
    --------
    >>> schedule = with_warmup(constant(), steps=4)
    >>> [float(schedule.rate(jnp.asarray(step), jnp.asarray(1.0))) for step in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
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
    """Return the state with which a schedule resumes from a checkpoint.

    The state of a schedule that monitors no metric depends only on its settings and the epoch; it
    is computed from the current settings. A schedule that monitors a metric keeps its state and its
    rate unless the configured rate has changed; if the metric has changed, it keeps only the rate.

    Parameters
    ----------
    schedule : Schedule
        The schedule.
    saved : dict
        Its state in the checkpoint, or that of another schedule.
    learning_rate : float
        The configured rate.
    epoch : int
        The epoch in which training resumes, from 1.
    same_rate, same_metric : bool
        Whether the configured rate, and the metric with its mode, are those of the checkpoint.

    Examples
    --------
    >>> plateau = reduce_on_plateau(patience=2)
    >>> saved = {"learning_rate": 0.01, "best": 0.5, "bad_epochs": 1, "cooldown": 0}
    >>> resumed(plateau, saved, 0.1, 4, same_rate=True, same_metric=True) == saved
    True
    >>> resumed(constant(), saved, 0.1, 4, same_rate=True, same_metric=True)
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
    """Turn None into a constant `Schedule` and an optax schedule into one by step.

    Raises
    ------
    ValueError
        If `schedule` is neither of these, nor a `Schedule`.

    Examples
    --------
    >>> schedule = as_schedule(optax.linear_schedule(1.0, 0.0, transition_steps=10))
    >>> float(schedule.rate(jnp.asarray(5), jnp.asarray(1.0)))
    0.5
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
