"""The training and the evaluation step: pure, jitted, donated; compiled nowhere else.

With accumulation, a training step adds up gradients of the *sum* of the loss and divides them by
the sum of its weights when it updates, so that N batches of b rows make the same update as one of
N x b.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import ROW_MASK, BatchData
from medjax.compiled import CompiledStep
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.schedules import Schedule
from medjax.state import TrainState


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


def make_forward_pass(
    forward: Forward, options: Options, *, return_loss: bool = True
) -> Callable[..., Any]:
    """Return a function that runs `forward` in the precision and loss arithmetic of `options`.

    The function is ``forward_pass(variables, batch, key, eval_mode) -> (outputs, Mean,
    collections)``; it raises ValueError if the component returns no loss though `return_loss`
    asks for it.
    """
    bfloat16 = options.precision == "bfloat16"
    matmul_precision = "default" if bfloat16 else "highest"

    def forward_pass(
        variables: Variables, batch: BatchData, key: jax.Array, eval_mode: bool
    ) -> tuple[BatchData, Mean, Variables]:
        if bfloat16:
            mask = batch.get(ROW_MASK)
            # Not the other collections: a running average would lose its small steps.
            params, batch = jax.tree.map(_as_bfloat16, (variables["params"], batch))
            variables = {**variables, "params": params}
            if mask is not None:
                batch[ROW_MASK] = mask
        with jax.default_matmul_precision(matmul_precision):
            outputs, loss, collections = forward(
                variables, batch, key, return_loss=return_loss, eval_mode=eval_mode
            )
        if not return_loss:
            return outputs, Mean.empty(), collections
        if loss is None:
            raise ValueError("The component did not return a 'loss' from the input.")
        weight = jnp.asarray(loss.weight, jnp.float32)
        weighs = weight > 0
        # What weighs nothing counts nothing, be it NaN: torch's mean over no labels is.
        total = jnp.where(weighs, jnp.asarray(loss.total, jnp.float32), 0.0)
        if options.loss_arithmetic == "medkit":
            # Divided by 1 where nothing is weighed: 0 / 0 would make the gradient NaN, `where` or
            # not.
            total = total / jnp.where(weighs, weight, 1.0)
            weight = weighs.astype(jnp.float32)
        return outputs, Mean(total, weight), collections

    return forward_pass


def _as_bfloat16(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf


def make_train_step(
    state: TrainState,
    *,
    schedule: Schedule,
    options: Options,
    accumulation: int,
    mesh: Mesh,
    with_outputs: bool = False,
) -> CompiledStep:
    """Return ``train_step(state, batch, flush) -> (state, StepStats)``.

    Parameters
    ----------
    state : TrainState
        The state it will run on, or its abstract value; gives shapes and shardings.
    schedule : Schedule
        Gives the learning rate of each update.
    options : Options
        Precision, loss arithmetic and what to do with a batch that is not finite.
    accumulation : int
        Batches that make one update.
    mesh : jax.sharding.Mesh
        Mesh of `sharding.make_mesh`.
    with_outputs : bool
        Whether `StepStats.outputs` is filled.

    Returns
    -------
    CompiledStep
        A pure function that takes over (donates) the state it is given. `batch` has one row axis,
        split over the mesh; a tuple of batches of one shape makes as many steps in one call, of
        which the last gives the stats. `flush` (bool, shape ()) asks for the update even if fewer
        than `accumulation` batches are waiting, for the last batch of an epoch.
    """
    forward_pass = make_forward_pass(state.apply_fn, options)
    max_skipped = options.max_skipped if options.on_non_finite == "skip" else 0
    accumulates = accumulation > 1
    divisor = accumulation if options.loss_arithmetic == "medkit" else None

    def train_step(
        state: TrainState, batch: BatchData, flush: jax.Array
    ) -> tuple[TrainState, StepStats]:
        key = jax.random.fold_in(state.key, state.batch_step)

        def loss_of(params: Any) -> tuple[jax.Array, tuple[BatchData, Mean, Variables]]:
            variables = {"params": params, **state.collections}
            outputs, loss, collections = forward_pass(variables, batch, key, False)
            if accumulates:
                return loss.total, (outputs, loss, collections)
            # Here the division costs nothing; of the gradients it would be a pass over all.
            mean = loss.total / jnp.where(loss.weight > 0, loss.weight, 1.0)
            return mean, (outputs, loss, collections)

        (_, (outputs, loss, collections)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        # The slope of a NaN that weighs nothing is NaN, and counts as little.
        norm = jnp.where(loss.weight > 0, optax.tree.norm(gradients), 0.0)
        finite = jnp.isfinite(loss.total) & jnp.isfinite(norm)
        rate = schedule.rate(jnp.asarray(state.step), state.learning_rate)
        taken = finite & (state.stopped_at < 0)
        state, waiting = _take_batch(state, gradients, loss, collections, taken)
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
            outputs if with_outputs else None,
        )
        return state, stats

    def train_steps(
        state: TrainState, batch: BatchData | tuple[BatchData, ...], flush: jax.Array
    ) -> tuple[TrainState, StepStats]:
        if not isinstance(batch, tuple):
            return train_step(state, batch, flush)
        batches = jax.tree.map(lambda *columns: jnp.stack(columns), *batch)
        flushes = flush & (jnp.arange(len(batch)) == len(batch) - 1)
        state, stats = jax.lax.scan(
            lambda state, step: train_step(state, *step), state, (batches, flushes)
        )
        return state, jax.tree.map(lambda leaf: leaf[-1], stats)

    layout = sharding.state_shardings(state, mesh)
    everywhere = sharding.replicated(mesh)
    return CompiledStep(
        train_steps,
        "training",
        donate_argnums=0,
        out_shardings=(layout, everywhere),
        compiler_options=_compiler_options(mesh),
    )


def _compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Return what XLA is told so that gradient checkpointing saves memory on every platform.

    On the CPU it removes the barriers between what is computed first and what is computed again,
    then merges both: the time would be spent and nothing saved.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if on_cpu else None


_TINY = float(jnp.finfo(jnp.float32).tiny)


def _take_batch(
    state: TrainState, gradients: Any, loss: Mean, collections: Variables, taken: jax.Array
) -> tuple[TrainState, Any]:
    """Count the batch and add its gradients to those waiting, unless it is to be left out."""

    def choose(new: Any, old: Any, condition: jax.Array = taken) -> Any:
        return jax.tree.map(functools.partial(jnp.where, condition), new, old)

    if state.gradients is None:
        waiting, weight = gradients, loss.weight
    else:
        added = jax.tree.map(jnp.add, state.gradients, gradients)
        waiting = choose(added, state.gradients, taken & (loss.weight > 0))
        weight = choose(state.gradient_weight + loss.weight, state.gradient_weight)
    collections = {**state.collections, **collections}
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
    state: TrainState, waiting: Any, rate: jax.Array, *, divisor: int | None, accumulates: bool
) -> TrainState:
    gradients = waiting
    if accumulates:
        weight = state.gradient_weight if divisor is None else divisor
        gradients = jax.tree.map(lambda gradient: gradient / weight, waiting)
    hyperparams = {**state.opt_state.hyperparams, "learning_rate": rate}
    state = state.replace(opt_state=state.opt_state._replace(hyperparams=hyperparams))
    return state.apply_gradients(grads=gradients).replace(
        gradients=jax.tree.map(jnp.zeros_like, waiting) if accumulates else None,
        gradient_weight=jnp.zeros_like(state.gradient_weight),
        pending=jnp.zeros_like(state.pending),
    )


def _wait(
    state: TrainState, waiting: Any, rate: jax.Array, *, due: jax.Array, accumulates: bool
) -> TrainState:
    # A group that is due but weighs nothing (all labels ignored) ends without an update.
    del rate
    return state.replace(
        gradients=waiting if accumulates else None,
        pending=jnp.where(due, 0, state.pending),
    )


def make_eval_step(
    forward: Forward,
    *,
    options: Options,
    mesh: Mesh,
    with_outputs: bool = False,
) -> CompiledStep:
    """Return ``eval_step(variables, batch) -> (loss, outputs)``.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options
        Precision and loss arithmetic.
    mesh : jax.sharding.Mesh
        Mesh of `sharding.make_mesh`.
    with_outputs : bool
        Whether `outputs` is what `forward` returned, or None.

    Returns
    -------
    CompiledStep
        A pure function; `loss` is the `Mean` of the batch.
    """
    forward_pass = make_forward_pass(forward, options)

    def eval_step(variables: Variables, batch: BatchData) -> tuple[Mean, BatchData | None]:
        key = jax.random.key(0)  # nothing random happens in evaluation
        outputs, loss, _ = forward_pass(variables, batch, key, True)
        return loss, outputs if with_outputs else None

    return CompiledStep(eval_step, "evaluation", out_shardings=sharding.replicated(mesh))


def make_predict_step(forward: Forward, options: Options) -> CompiledStep:
    """Return ``predict_step(variables, batch) -> outputs``: evaluation without a loss.

    Parameters
    ----------
    forward : Forward
        The component's forward pass.
    options : Options
        For `precision`.
    """
    forward_pass = make_forward_pass(forward, options, return_loss=False)

    def predict_step(variables: Variables, batch: BatchData) -> BatchData:
        outputs: BatchData = forward_pass(variables, batch, jax.random.key(0), True)[0]
        return outputs

    return CompiledStep(predict_step, "prediction")
