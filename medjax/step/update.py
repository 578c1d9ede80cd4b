"""The update: from the gradients of a batch to the next state.

With accumulation, gradients of the *sum* of the loss are added up and divided by the sum of its
weights when the update is made, so that N batches of b rows make the same update as one of N x b
rows.

Where batches are grouped by length, the divisor is not what this update weighs, but what updates
usually weigh. A batch of short sentences has few labels, which would otherwise count more than
those of long ones, and so would those of the last batch, if it is not full.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
import optax

from medjax.batch import BatchData
from medjax.component import Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.optimizer import global_norm
from medjax.schedules import Schedule
from medjax.state import EpochLoss, TrainState, Waiting
from medjax.step.due import Due

Tree = TypeVar("Tree")


class BatchGradients(NamedTuple):
    """What a batch contributes to an update.

    Attributes
    ----------
    gradients : pytree
        Like ``state.params``: of the mean loss, or of its sum where batches accumulate.
    loss : Mean
        Loss of the batch.
    collections : dict
        The collections that `forward` changed. ``"params"`` may hold parameters that it wrote to
        itself, by their keys in `TrainState.params`; the update is applied to these.
    """

    gradients: optax.Updates
    loss: Mean
    collections: Variables


class StepStats(NamedTuple):
    """Reports on a training step; it outlives the state, whose buffers the next step reuses.

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
        Whether the batch counts, bool, shape (); False if it was left out.
    outputs : BatchData or None
        What `forward` returned, if asked for.
    """

    losses: Mean
    grad_norm: jax.Array
    learning_rate: jax.Array
    stopped_at: jax.Array
    taken: jax.Array
    outputs: BatchData | None


class Update(Protocol):
    """Makes the next state, traced."""

    def __call__(
        self, state: TrainState, batch: BatchGradients, due: Due, /
    ) -> tuple[TrainState, StepStats]:
        """Return the next state and the stats, without outputs.

        Parameters
        ----------
        state : TrainState
            The state.
        batch : BatchGradients
            What the batch contributes.
        due : array
            Whether the update is due even if fewer batches than it takes are waiting, bool,
            shape ().
        """
        ...


def make_update(schedule: Schedule, options: Options, accumulation: int) -> Update:
    r"""Make the update of a run.

    With the exact arithmetic, the gradient of update :math:`u`, with the sum of losses :math:`T_u`
    and of weights :math:`W_u`, is :math:`\nabla T_u / W_u`; for a state with an `EpochLoss` it is

    .. math:: g_u = \nabla T_u \Big/ \frac{1}{u - u_0} \sum_{v = u_0 + 1}^u W_v

    over the updates of this epoch and of the one before, which begins after :math:`u_0`.

    Parameters
    ----------
    schedule, options, accumulation
        As for `make_train_step`.
    """
    max_skipped = options.max_skipped if options.on_non_finite == "skip" else 0
    accumulates = accumulation > 1
    divisor = accumulation if options.loss_arithmetic == "medkit" else None

    def update(state: TrainState, batch: BatchGradients, due: Due) -> tuple[TrainState, StepStats]:
        loss = batch.loss
        # The gradient of a NaN that weighs nothing is NaN, and does not count either.
        norm = jnp.where(loss.weight > 0, global_norm(batch.gradients), 0.0)
        finite = jnp.isfinite(loss.total) & jnp.isfinite(loss.weight) & jnp.isfinite(norm)
        rate = schedule.rate(jnp.asarray(state.step), state.learning_rate)
        taken = finite & (state.stopped_at < 0)
        state, waiting = _take_batch(state, batch, taken)
        state = _note_skipped(state, finite, max_skipped)
        due = (state.pending >= accumulation) | due
        apply = due & (state.gradient_weight > 0) & (state.stopped_at < 0)
        if not accumulates:
            apply = apply & taken
        state = jax.lax.cond(
            apply,
            functools.partial(_update, divisor=divisor, accumulates=accumulates),
            functools.partial(_wait, due=due, accumulates=accumulates),
            state,
            waiting,
            rate,
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
    state: TrainState, batch: BatchGradients, taken: jax.Array
) -> tuple[TrainState, Waiting]:
    """Count the batch and add gradients and loss to those waiting, unless it is left out."""
    gradients, loss, collections = batch

    def choose(new: Tree, old: Tree, condition: jax.Array = taken) -> Tree:
        chosen: Tree = jax.tree.map(functools.partial(jnp.where, condition), new, old)
        return chosen

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
    check_collections(collections, state.collections)
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


def check_collections(found: Variables, known: Variables) -> None:
    """Refuse collections of `forward` that differ from those of the state in more than values.

    Parameters
    ----------
    found : dict
        What `forward` returned; ``"params"`` is left out.
    known : dict
        The collections of `init`.

    Raises
    ------
    ValueError
        Names a collection that `init` lacks, or that has another structure or other shapes.
    """
    for name in sorted(found.keys() - {"params"}):
        if name not in known:
            own = sorted(known.keys() - {"params"})
            msg = (
                f"component.forward returned the collection {name!r}, which component.init did not "
                f"return; it returned {own} besides params. Return it from init, too, or leave it "
                "out of what forward returns, in Flax out of mutable=[...]"
            )
            raise ValueError(msg)
        shapes = [jax.tree.map(jnp.shape, each[name]) for each in (found, known)]
        if shapes[0] != shapes[1]:
            msg = (
                f"component.forward returned the collection {name!r} with the shapes "
                f"{shapes[0]!s:.200}; expected those of component.init, {shapes[1]!s:.200}"
            )
            raise ValueError(msg)


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
    gradients, losses = waiting.gradients, state.losses
    own_weight = state.gradient_weight
    weight = own_weight if divisor is None or not accumulates else divisor
    if divisor is None and isinstance(losses, EpochLoss):
        losses = losses.after_update()
        weight = losses.update_weight
        if not accumulates:  # they are divided by their own weight already
            factor = own_weight / weight
            # Gradients of bfloat16 stay so, as the state of the optimizer does.
            gradients = jax.tree.map(lambda each: each * factor.astype(each.dtype), gradients)
    if accumulates:
        gradients = jax.tree.map(
            lambda gradient, param: (gradient / weight).astype(param.dtype), gradients, state.params
        )
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": rate}
    # An optimizer may need the loss that the gradients are of, as Polyak's step size does.
    extra = {} if waiting.loss is None else {"value": waiting.loss / weight}
    updates, opt_state = state.tx.update(
        gradients, state.opt_state._replace(hyperparams=hyperparams), state.params, **extra
    )
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        gradients=jax.tree.map(jnp.zeros_like, waiting).stored if accumulates else None,
        gradient_weight=jnp.zeros_like(own_weight),
        pending=jnp.zeros_like(state.pending),
        losses=losses,
    )


def _wait(
    state: TrainState, waiting: Waiting, rate: jax.Array, *, due: jax.Array, accumulates: bool
) -> TrainState:
    # Batches that are due but weigh nothing (all labels ignored) end without an update.
    del rate
    return state.replace(
        gradients=waiting.stored if accumulates else None,
        pending=jnp.where(due, 0, state.pending),
    )
