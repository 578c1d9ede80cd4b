"""Resuming from a checkpoint with settings that may have changed since it was saved.

The user's current settings hold. What training has learnt (weights, moments, counters, position) is
kept. State derived from a setting that has changed is dropped, and a warning says so. What cannot
be honoured is refused, with both values.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from medjax import sharding
from medjax.checkpoint import CheckpointStore, MismatchError
from medjax.checkpoint.progress import EVAL_ITEMS, Progress, tell_of_other_data
from medjax.checkpoint.store import ResumePoint
from medjax.loop.evaluation_data import with_evaluation
from medjax.loop.request import RunRequest
from medjax.metrics.mean import Mean
from medjax.optimizer import with_hyperparameters
from medjax.schedules import ScheduleState, resumed
from medjax.state import EpochLoss, TrainState, dropout_key, none_waiting

logger = logging.getLogger("medjax")

LOSS = "loss"
"""Name of `TrainableComponent.loss_settings` among the settings."""

READING = "reading"
"""Name of `TrainableComponent.reading` among the settings."""

WITHIN_EPOCH = (
    "seed",
    "items",
    "batch_size",
    "gradient_accumulation_steps",
    "length_window",
    "grouping",
    "sampling",
    "length_ladder",
    "padding",
    "order",
    "loss_arithmetic",
    "do_metrics_in_training",
    "metrics computer",
    LOSS,
    READING,
)
"""Settings that the meaning of a position within an epoch depends on."""

IDENTITY = "component"
"""Name of `TrainableComponent.identity` among the settings."""

WEIGHING = ("items", "sampling", "batch_size", "gradient_accumulation_steps", LOSS)
"""Entries of `Progress.data` and settings that what an update weighs depends on."""

SHAPING_OPTIONS = ("max_grad_norm", "weight_decay")
"""Options that add a part to the state of the optimizer that learns nothing."""

OPTIMIZER_RATE = "rate of the optimizer"
"""Setting with the rate that a schedule begins with, if the optimizer has one of its own."""

HYPERPARAMETERS = "hyperparameters of the optimizer"
"""Setting with the numbers that the optimizer's state begins with; see `with_settings`."""

Settings = Mapping[str, Any]
"""Settings by name, ready for JSON."""


def settings_of(request: RunRequest, more: Mapping[str, object] | None = None) -> dict[str, Any]:
    """Record everything that the user has set, by name and ready for JSON.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do: the fields of configuration and options, the mode of the
        schedule and the class of the metrics computer count.
    more : mapping, optional
        Other settings, by name.
    """
    options, computer = request.options, request.metrics_computer
    fields = {
        **request.config.to_dict(),
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(options)},
        "schedule mode": request.schedule.mode,
        "metrics computer": None if computer is None else type(computer).__name__,
        IDENTITY: request.component.identity or {},
        LOSS: request.component.loss_settings or {},
        READING: request.component.reading or {},
        **(more or {}),
    }
    return dict(json.loads(json.dumps(fields, default=str)))


def reconcile(saved: Progress, fresh: Progress, request: RunRequest) -> Progress:
    """Return the progress to continue with.

    Parameters
    ----------
    saved : Progress
        The checkpoint's.
    fresh : Progress
        What a new run would start with.
    request : RunRequest
        What the run is asked to do.

    Raises
    ------
    MismatchError
        If the weights would mean something else, or if the checkpoint is within an epoch and a
        setting has changed that the position there, or a sum over the batches so far, depends on.
    """
    _check_identity(saved, fresh)
    # The seed of a run may be drawn, so it is not always the one that was set.
    before = {**saved.data, **saved.settings, "seed": saved.seed}
    after = {**fresh.data, **fresh.settings, "seed": fresh.seed}
    if saved.batch:
        _check_position(saved, before, after, fresh.data)
    else:
        tell_of_other_data(saved, fresh)
        if before["seed"] != after["seed"]:
            _warn(f"seed was {before['seed']} and is {after['seed']} now: order and dropout change")
    reads_otherwise = _tell_of_reading(saved, fresh)
    rate = _schedule_state(saved, before, after, request)
    # Lengths that were fitted serve on, so that a resumed run groups and pads as before.
    fitted = saved.ladders if request.options.length_ladder == "fitted" else {}
    kept = saved.columns if request.config.do_metrics_in_training else {}
    if saved.columns and not kept:
        _warn("scores in training were asked for and are not now: those of this epoch are dropped")
    return saved._replace(
        seed=saved.seed if saved.batch else fresh.seed,
        data=with_evaluation(saved, fresh.data, reads_otherwise=reads_otherwise),
        settings=fresh.settings,
        schedule=rate,
        columns=kept,
        ladders=fitted,
    )


def _check_identity(saved: Progress, fresh: Progress) -> None:
    before, after = (progress.settings.get(IDENTITY, {}) for progress in (saved, fresh))
    for name in after:
        if name in before and before[name] != after[name]:
            msg = (
                f"the checkpoint was saved with {name} {before[name]!r}, but now it is "
                f"{after[name]!r}: its weights would mean something else; make the component as it "
                "was, or start afresh with resume=None"
            )
            raise MismatchError(msg)


def _tell_of_reading(saved: Progress, fresh: Progress) -> bool:
    """Return whether items are read otherwise than in the checkpoint, and warn of that."""
    # A checkpoint of an earlier version does not tell how.
    before, after = (progress.settings.get(READING, {}) for progress in (saved, fresh))
    changed = [name for name in after if name in before and before[name] != after[name]]
    if changed:
        told = (f"{name} was {before[name]!r} and is {after[name]!r} now" for name in changed)
        _warn(
            f"{', '.join(told)}: losses and scores before and after are of different readings of "
            "the items. They are not compared: the best checkpoint, early stopping and "
            f"reduce-on-plateau go by the evaluations from epoch {saved.epoch} on"
        )
    return bool(changed)


def _check_position(saved: Progress, before: Settings, after: Settings, data: Settings) -> None:
    for name in WITHIN_EPOCH:
        known = name in after and (name in before or name in data)
        if not known or before.get(name) == after[name]:
            continue
        if name == "do_metrics_in_training" and not after[name]:
            continue  # they are dropped
        if name == "length_ladder" and not after["length_window"]:
            continue  # without grouping, no batch depends on it
        if name == "metrics computer" and not (
            before.get("do_metrics_in_training") and after.get("do_metrics_in_training")
        ):
            continue  # it has nothing of this epoch yet
        msg = (
            f"the checkpoint stands at batch {saved.batch} of epoch {saved.epoch}, "
            f"where {name} was {before.get(name)!r}, but now it is {after[name]!r}; resume with "
            "what it was, from a checkpoint at the end of an epoch, or start afresh with "
            "resume=None"
        )
        raise MismatchError(msg)


def _schedule_state(
    saved: Progress, before: Settings, after: Settings, request: RunRequest
) -> ScheduleState:
    def same(*names: str) -> bool:
        return all(before.get(name, after.get(name)) == after.get(name) for name in names)

    schedule = request.schedule
    state = resumed(
        schedule,
        saved.schedule,
        request.config.learning_rate,
        saved.epoch,
        same_rate=same("learning_rate", OPTIMIZER_RATE),
        same_metric=same("metric_to_track_lr", "schedule mode", EVAL_ITEMS, READING),
    )
    if schedule.resume is None and state != saved.schedule:
        _warn(
            f"the learning rate schedule or its settings have changed: the rate set for epoch "
            f"{saved.epoch} was {saved.schedule.get('learning_rate')!r} and is "
            f"{state['learning_rate']!r} now"
            + ("; what it had seen of the metric is dropped" if schedule.needs_metric else "")
        )
    return state


def _warn(text: str) -> None:
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)


def restore_state(
    store: CheckpointStore,
    checkpoint: ResumePoint,
    state: TrainState,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    *,
    nb_updates: int,
) -> TrainState:
    """Return the state of a checkpoint in the form that this run needs.

    Whether gradients are summed over batches, and clipping and decay, shape the state without being
    anything that was learnt: a checkpoint with other settings is read as it is and converted. So is
    one of an earlier version, whose `TrainState.losses` were never an `EpochLoss`.

    Parameters
    ----------
    store : CheckpointStore
        Reads it.
    checkpoint : ResumePoint
        The checkpoint. It is at the end of an epoch if only one of it and this run sums gradients.
    state : TrainState
        The state of a new run; shapes and types suffice.
    mesh : jax.sharding.Mesh
        Where the state goes.
    optimizer : optax.GradientTransformation
        The optimizer with clipping and decay as they were when the checkpoint was saved.
    nb_updates : int
        Number of updates in the epoch that the checkpoint stands in.

    Raises
    ------
    MismatchError
        If the checkpoint is one of another model or optimizer.
    CorruptCheckpointError
        If it cannot be read.
    """
    spec = checkpoint.record["spec"]
    sums = any(name.startswith(".gradients") for name in spec)
    form = state.replace(opt_state=jax.eval_shape(optimizer.init, state.params))
    if sums != (state.gradients is not None):
        waiting = jax.eval_shape(lambda params: none_waiting(optimizer, params), state.params)
        form = form.replace(gradients=waiting if sums else None)
    counts = ".losses.nb_updates" in spec
    if counts != isinstance(state.losses, EpochLoss):
        form = form.replace(losses=EpochLoss.empty() if counts else Mean.empty())
    restored = store.load(checkpoint, form, sharding.state_shardings(form, mesh))
    wanted = jax.tree.structure(state.opt_state)
    opt_state = jax.tree.unflatten(wanted, jax.tree.leaves(restored.opt_state))
    gradients = None
    if sums != (state.gradients is not None):
        # The last batch of an epoch may have been left out, or weighed nothing.
        restored = restored.replace(
            gradient_weight=jnp.zeros_like(restored.gradient_weight),
            pending=jnp.zeros_like(restored.pending),
        )
    if state.gradients is not None:
        gradients = restored.gradients if sums else none_waiting(state.tx, restored.params)
    losses = Mean(restored.losses.total, restored.losses.weight)
    if isinstance(state.losses, EpochLoss):
        made = sharding.put(np.int32(nb_updates), sharding.replicated(mesh))
        losses = restored.losses if counts else EpochLoss(losses.total, losses.weight, made)
    result: TrainState = restored.replace(opt_state=opt_state, gradients=gradients, losses=losses)
    return result


def with_settings(state: TrainState, saved: Progress, current: Progress, mesh: Mesh) -> TrainState:
    """Put the current learning rate and, if the seed has changed, its dropout key into a state.

    A hyperparameter that the optimizer keeps in its state has the current setting if that has
    changed, else the value that it had reached. What updates weighed in other data, or with another
    batch size or loss, is dropped.

    Parameters
    ----------
    state : TrainState
        A restored state.
    saved, current : Progress
        The checkpoint's, and that of `reconcile`.
    mesh : jax.sharding.Mesh
        Where the state is.
    """
    rate = np.float32(current.schedule["learning_rate"])
    state = state.replace(learning_rate=sharding.put(rate, sharding.replicated(mesh)))
    if current.seed != saved.seed:
        key = sharding.put(dropout_key(current.seed), sharding.replicated(mesh))
        state = state.replace(key=key)
    state = _with_hyperparameters(state, saved.settings, current.settings, mesh)
    before, after = ({**each.settings, **each.data} for each in (saved, current))
    # A checkpoint of an earlier version does not tell its loss.
    others = any(before.get(name, after[name]) != after[name] for name in WEIGHING if name in after)
    if others and isinstance(state.losses, EpochLoss):
        losses = sharding.put(EpochLoss.empty(), sharding.replicated(mesh))
        state = state.replace(losses=losses)
    return state


def _with_hyperparameters(
    state: TrainState, saved: Settings, current: Settings, mesh: Mesh
) -> TrainState:
    before, after = (each.get(HYPERPARAMETERS, {}) for each in (saved, current))
    # A checkpoint of an earlier version does not tell what they were set to.
    changed = {n: after[n] for n in after if n in before and before[n] != after[n]}
    if not changed:
        return state
    told = (f"{n} was {float(before[n]):.7g} and is {float(after[n]):.7g} now" for n in changed)
    _warn(f"hyperparameters of the optimizer have changed: {', '.join(told)}")
    put = functools.partial(sharding.put, shardings=sharding.replicated(mesh))
    return state.replace(opt_state=with_hyperparameters(state.opt_state, changed, put))
