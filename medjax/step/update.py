"""The update: from the gradients of a batch to the next state.

With accumulation, gradients of the *sum* of the loss are added up and divided by the sum of its
weights when the update is made, so that N batches of b rows make the same one as N x b rows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from medjax.batch import BatchData
from medjax.component import Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.schedules import Schedule
from medjax.state import TrainState, Waiting


class Found(NamedTuple):
    """What a batch says of the parameters.

    Attributes
    ----------
    gradients : pytree
        Like ``state.params``: of the mean loss, or of its sum where batches accumulate.
    loss : Mean
        Loss of the batch.
    collections : dict
        The collections that `forward` changed. Under ``"params"`` may lie parameters that it wrote
        to itself, by their keys in `TrainState.params`; the update is applied to these.
    """

    gradients: Any
    loss: Mean
    collections: Variables


class StepStats(NamedTuple):
    """What a training step tells; it outlives the state, whose buffers the next step takes.

    Attributes
    ----------
    losses : Mean
        Loss of the epoch so far.
    grad_norm : jax.Array
        Global norm of the gradient of this batch's mean loss, float32, shape ().
    learning_rate : jax.Array
        Rate in force, float32, shape ().
    stopped_at : jax.Array
        See `TrainState.stopped_at`.
    taken : jax.Array
        Whether the batch counts, bool, shape (); False when it was left out.
    outputs : BatchData or None
        What `forward` returned, if asked for.
    """

    losses: Mean
    grad_norm: jax.Array
    learning_rate: jax.Array
    stopped_at: jax.Array
    taken: jax.Array
    outputs: BatchData | None


def make_update(
    schedule: Schedule, options: Options, accumulation: int
) -> Callable[[TrainState, Found, jax.Array], tuple[TrainState, StepStats]]:
    """Return ``update(state, found, flush) -> (state, StepStats)``, without outputs.

    Parameters
    ----------
    schedule, options, accumulation
        As for `make_train_step`.
    """
    max_skipped = options.max_skipped if options.on_non_finite == "skip" else 0
    accumulates = accumulation > 1
    divisor = accumulation if options.loss_arithmetic == "medkit" else None

    def update(state: TrainState, found: Found, flush: jax.Array) -> tuple[TrainState, StepStats]:
        loss = found.loss
        # The slope of a NaN that weighs nothing is NaN, and counts as little.
        norm = jnp.where(loss.weight > 0, optax.tree.norm(found.gradients), 0.0)
        finite = jnp.isfinite(loss.total) & jnp.isfinite(norm)
        rate = schedule.rate(jnp.asarray(state.step), state.learning_rate)
        taken = finite & (state.stopped_at < 0)
        state, waiting = _take_batch(state, *found, taken)
        state = _note_skipped(state, finite, max_skipped)
        due = (state.pending >= accumulation) | flush
        apply = due & (state.gradient_weight > 0) & (state.stopped_at < 0)
        if not accumulates:
            apply = apply & taken
        state = jax.lax.cond(
            apply,
            functools.partial(_update, divisor=divisor, accumulates=accumulates),
            functools.partial(_wait, due=due, accumulates=accumulates),
            *(state, waiting, rate),
        )
        stats = StepStats(
            state.losses,
            norm / jnp.maximum(loss.weight, _TINY) if accumulates else norm,
            rate,
            state.stopped_at,
            taken,
            outputs=None,
        )
        return state, stats

    return update


_TINY = float(jnp.finfo(jnp.float32).tiny)


def _take_batch(
    state: TrainState, gradients: Any, loss: Mean, collections: Variables, taken: jax.Array
) -> tuple[TrainState, Waiting]:
    """Count the batch and add gradients and loss to those waiting, unless it is to be left out."""

    def choose(new: Any, old: Any, condition: jax.Array = taken) -> Any:
        return jax.tree.map(functools.partial(jnp.where, condition), new, old)

    if state.gradients is None:
        waiting, weight = Waiting(gradients, loss.total), loss.weight
    else:
        old = state.gradients
        old = old if isinstance(old, Waiting) else Waiting(old, None)
        new = Waiting(gradients, None if old.loss is None else loss.total)
        added = jax.tree.map(jnp.add, old, new)
        waiting = choose(added, old, taken & (loss.weight > 0))
        weight = choose(state.gradient_weight + loss.weight, state.gradient_weight)
    written = collections.get("params", {})
    collections = {k: v for k, v in collections.items() if k != "params"}
    collections = {**state.collections, **collections}
    if written:
        state = state.replace(params=choose({**state.params, **written}, state.params))
    state = state.replace(
        gradients=None,
        gradient_weight=weight,
        pending=state.pending + taken,
        batch_step=state.batch_step + taken,
        losses=choose(state.losses.merge(loss), state.losses),
        collections=choose(collections, state.collections),
    )
    return state, waiting


def _note_skipped(state: TrainState, finite: jax.Array, max_skipped: int) -> TrainState:
    running = state.stopped_at < 0
    in_row = jnp.where(finite, 0, state.skipped_in_row + 1)
    seen = state.batch_step + state.skipped
    stops = running & (in_row > max_skipped)
    return state.replace(
        skipped_in_row=jnp.where(running, in_row, state.skipped_in_row),
        skipped=state.skipped + (running & ~finite),
        stopped_at=jnp.where(stops, seen, state.stopped_at),
    )


def _update(
    state: TrainState, waiting: Waiting, rate: jax.Array, *, divisor: int | None, accumulates: bool
) -> TrainState:
    gradients = waiting.gradients
    weight = state.gradient_weight if divisor is None or not accumulates else divisor
    if accumulates:
        gradients = jax.tree.map(lambda gradient: gradient / weight, gradients)
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": rate}
    # An optimizer may ask for the loss that the gradients are of, as Polyak's step size does.
    extra = {} if waiting.loss is None else {"value": waiting.loss / weight}
    updates, opt_state = state.tx.update(
        gradients, state.opt_state._replace(hyperparams=hyperparams), state.params, **extra
    )
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        gradients=jax.tree.map(jnp.zeros_like, waiting).held if accumulates else None,
        gradient_weight=jnp.zeros_like(state.gradient_weight),
        pending=jnp.zeros_like(state.pending),
    )


def _wait(
    state: TrainState, waiting: Waiting, rate: jax.Array, *, due: jax.Array, accumulates: bool
) -> TrainState:
    # A group that is due but weighs nothing (all labels ignored) ends without an update.
    del rate
    return state.replace(
        gradients=waiting.held if accumulates else None,
        pending=jnp.where(due, 0, state.pending),
    )
