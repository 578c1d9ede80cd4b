"""What of a checkpoint holds when the settings have changed since.

What the user has set now holds. What training has learnt (weights, moments, counters, position) is
kept. State that came of a setting which has changed is dropped, and a warning says so. What cannot
be honoured is refused, with both values.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from medjax import sharding
from medjax.checkpoint import CheckpointStore, MismatchError
from medjax.checkpoint.store import Found
from medjax.config import Options, TrainerConfig
from medjax.progress import Progress, tell_of_other_data
from medjax.schedules import Schedule, resumed
from medjax.state import TrainState, dropout_key, none_waiting

logger = logging.getLogger("medjax")

WITHIN_EPOCH = (
    "seed",
    "items",
    "batch_size",
    "gradient_accumulation_steps",
    "length_window",
    "padding",
    "order",
    "loss_arithmetic",
    "do_metrics_in_training",
    "metrics computer",
)
"""Settings that the meaning of a position within an epoch depends on."""

SHAPING_OPTIONS = ("max_grad_norm", "weight_decay")
"""Options that add a part to the state of the optimizer, without anything that is learnt."""


def settings_of(
    config: TrainerConfig,
    options: Options,
    schedule: Schedule,
    metrics_computer: Any,
    **more: Any,
) -> dict[str, Any]:
    """Return all that the user has set, by name and ready for JSON.

    Parameters
    ----------
    config, options
        Their fields.
    schedule : Schedule
        Of which the mode counts.
    metrics_computer : MetricsComputer or None
        Of which the class counts.
    more
        Other settings, for instance the number of items.
    """
    fields = {
        **config.to_dict(),
        **{field.name: getattr(options, field.name) for field in dataclasses.fields(options)},
        "schedule mode": schedule.mode,
        "metrics computer": None if metrics_computer is None else type(metrics_computer).__name__,
        **more,
    }
    return dict(json.loads(json.dumps(fields, default=str)))


def reconcile(then: Progress, now: Progress, schedule: Schedule, config: TrainerConfig) -> Progress:
    """Return the progress to go on with.

    Parameters
    ----------
    then : Progress
        The checkpoint's.
    now : Progress
        What a new run would start with.
    schedule : Schedule
        The schedule that is set now.
    config : TrainerConfig
        The configuration that is set now.

    Raises
    ------
    MismatchError
        If the checkpoint stands within an epoch and something has changed that the position there,
        or what was summed up so far, depends on.
    """
    # The seed of a run may be drawn, so it is not the one that was set.
    before = {**then.data, **then.settings, "seed": then.seed}
    after = {**now.data, **now.settings, "seed": now.seed}
    if then.batch:
        _check_position(then, before, after, now.data)
    else:
        tell_of_other_data(then, now)
        if before["seed"] != after["seed"]:
            _say(f"seed was {before['seed']} and is {after['seed']} now: order and dropout change")
    rate = _schedule_state(then, before, after, schedule, config)
    kept = then.columns if config.do_metrics_in_training else {}
    if then.columns and not kept:
        _say("scores in training were asked for and are not now: those of this epoch are dropped")
    return then._replace(
        seed=then.seed if then.batch else now.seed,
        data=now.data,
        settings=now.settings,
        schedule=rate,
        columns=kept,
    )


def _check_position(
    then: Progress, before: Mapping[str, Any], after: Mapping[str, Any], data: Mapping[str, Any]
) -> None:
    for name in WITHIN_EPOCH:
        known = name in after and (name in before or name in data)
        if not known or before.get(name) == after[name]:
            continue
        if name == "do_metrics_in_training" and not after[name]:
            continue  # they are dropped
        if name == "metrics computer" and not (
            before.get("do_metrics_in_training") and after.get("do_metrics_in_training")
        ):
            continue  # it has nothing of this epoch yet
        msg = (
            f"the checkpoint stands at batch {then.batch} of epoch {then.epoch}, "
            f"where {name} was {before.get(name)!r}, but now it is {after[name]!r}; resume with "
            "what it was, from a checkpoint at the end of an epoch, or start anew with "
            "resume=None"
        )
        raise MismatchError(msg)


def _schedule_state(
    then: Progress,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    schedule: Schedule,
    config: TrainerConfig,
) -> dict[str, Any]:
    def same(*names: str) -> bool:
        return all(before.get(name, after[name]) == after[name] for name in names)

    state = resumed(
        schedule,
        then.schedule,
        config.learning_rate,
        then.epoch,
        same_rate=same("learning_rate"),
        same_metric=same("metric_to_track_lr", "schedule mode"),
    )
    if schedule.resume is None and state != then.schedule:
        _say(
            f"the learning rate schedule or its settings have changed: the rate set for epoch "
            f"{then.epoch} was {then.schedule.get('learning_rate')!r} and is "
            f"{state['learning_rate']!r} now"
            + ("; what it had seen of the metric is dropped" if schedule.needs_metric else "")
        )
    return state


def _say(text: str) -> None:
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)


def restore_state(
    store: CheckpointStore, found: Found, state: TrainState, mesh: Mesh, optimizer: Any
) -> TrainState:
    """Return the state of a checkpoint in the form that this run needs.

    Whether gradients are summed over batches, and clipping and decay, shape the state without being
    anything that was learnt: a checkpoint that had them otherwise is read as it was and converted.

    Parameters
    ----------
    store : CheckpointStore
        Reads it.
    found : Found
        The checkpoint. One that sums gradients stands at the end of an epoch if this run does not,
        or the other way round.
    state : TrainState
        The state of a new run; shapes and types suffice.
    mesh : jax.sharding.Mesh
        Where it goes.
    optimizer : optax.GradientTransformation
        The optimizer with clipping and decay as they were when the checkpoint was saved.

    Raises
    ------
    MismatchError
        If the checkpoint holds another model or optimizer.
    CorruptCheckpointError
        If it cannot be read.
    """
    spec = found.record["spec"]
    sums = any(name.startswith(".gradients") for name in spec)
    form = state.replace(opt_state=jax.eval_shape(optimizer.init, state.params))
    if sums != (state.gradients is not None):
        waiting = jax.eval_shape(lambda params: none_waiting(optimizer, params), state.params)
        form = form.replace(gradients=waiting if sums else None)
    restored = store.load(found, form, sharding.state_shardings(form, mesh))
    wanted = jax.tree.structure(state.opt_state)
    opt_state = jax.tree.unflatten(wanted, jax.tree.leaves(restored.opt_state))
    gradients = None
    if state.gradients is not None:
        gradients = restored.gradients if sums else none_waiting(state.tx, restored.params)
    return restored.replace(opt_state=opt_state, gradients=gradients)


def with_settings(state: TrainState, then: Progress, now: Progress, mesh: Mesh) -> TrainState:
    """Return a restored state with the learning rate and the dropout key of what is set now."""
    rate = np.float32(now.schedule["learning_rate"])
    state = state.replace(learning_rate=sharding.put(rate, sharding.replicated(mesh)))
    if now.seed != then.seed:
        key = sharding.put(dropout_key(now.seed), sharding.replicated(mesh))
        state = state.replace(key=key)
    return state
