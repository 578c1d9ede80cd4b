"""The training step: pure, jitted, donated."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.compiled import CompiledStep
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.lent import owned
from medjax.metrics.mean import Mean
from medjax.schedules import Schedule
from medjax.state import TrainState
from medjax.step.forward import make_forward_pass
from medjax.step.stacked import Stacked
from medjax.step.update import Found, StepStats, make_update

LARGE = 1_000_000
"""Parameters from which on the update is a program of its own.

It is the same for batches of all shapes, and compiling it takes half as long as the gradients of a
batch. Starting a second program takes tens of microseconds, which only a small model would notice.
"""


class Differentiate(Protocol):
    """Runs a batch forward and backward."""

    def __call__(
        self, variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
    ) -> tuple[BatchData, Mean, Variables, Any]:
        """Return outputs, loss, changed collections and gradients.

        Parameters
        ----------
        variables, batch, key
            As for `medjax.component.Forward`.
        of_sum : bool
            Whether the gradients, by ``variables["params"]``, are those of ``loss.total``; else
            they are those of the mean.
        """
        ...


def make_train_step(
    state: TrainState,
    *,
    schedule: Schedule,
    options: Options,
    accumulation: int,
    mesh: Mesh,
    with_outputs: bool = False,
    separate_update: bool | None = None,
    differentiate: Differentiate | None = None,
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
    separate_update : bool, optional
        Whether gradients and update are two programs, of which the second is compiled once and not
        for each shape of batch; by default from `LARGE` parameters on. Results agree to rounding.
    differentiate : Differentiate, optional
        Gives the gradients of a component that has its own; by default JAX differentiates its
        `forward`.

    Returns
    -------
    CompiledStep
        A pure function that takes over (donates) the state it is given. `batch` has one row axis,
        split over the mesh; `Stacked` batches make as many steps in one call, of which the last
        gives the stats. `flush` (bool, shape ()) asks for the update even if fewer than
        `accumulation` batches are waiting, for the last batch of an epoch.
    """
    accumulates = accumulation > 1
    update = make_update(schedule, options, accumulation)
    differentiate = differentiate or _differentiated(owned(state.apply_fn), options)
    for_all: dict[str, Any] = {"keeps": tuple(map(owned, state.tx))}  # the step outlives the state

    def gradients(state: TrainState, batch: BatchData) -> tuple[Found, BatchData | None]:
        key = jax.random.fold_in(state.key, state.batch_step)
        outputs, loss, collections, found = differentiate(
            state.variables, batch, key, of_sum=accumulates
        )
        return Found(found, loss, collections), outputs if with_outputs else None

    def train_step(
        state: TrainState, batch: BatchData, flush: jax.Array
    ) -> tuple[TrainState, StepStats]:
        found, outputs = gradients(state, batch)
        state, stats = update(state, found, flush)
        return state, stats._replace(outputs=outputs)

    def train_steps(
        state: TrainState, batch: BatchData | Stacked, flush: jax.Array
    ) -> tuple[TrainState, StepStats]:
        if not isinstance(batch, Stacked):
            return train_step(state, batch, flush)
        nb_steps = jax.tree.leaves(batch)[0].shape[0]
        flushes = flush & (jnp.arange(nb_steps) == nb_steps - 1)
        state, stats = jax.lax.scan(
            lambda state, step: train_step(state, *step), state, (batch.columns, flushes)
        )
        return state, jax.tree.map(lambda leaf: leaf[-1], stats)

    layout = sharding.state_shardings(state, mesh)
    everywhere = sharding.replicated(mesh)
    compiler_options = _compiler_options(mesh)
    for_all |= {
        "donate_argnums": 0,
        "out_shardings": (layout, everywhere),
        "compiler_options": compiler_options,
    }
    if separate_update is None:
        nb_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
        separate_update = nb_parameters >= LARGE
    if not separate_update:
        return CompiledStep(train_steps, "training", **for_all)
    # The collections lie as XLA likes: which of them come back is not known yet.
    found_layout = Found(layout.params, everywhere, None)  # type: ignore[arg-type]
    return _TwoPrograms(
        train_steps,
        CompiledStep(
            gradients,
            "training",
            out_shardings=(found_layout, everywhere),
            compiler_options=compiler_options,
        ),
        CompiledStep(update, "training", subject="the update of any batch", **for_all),
        **for_all,
    )


def _differentiated(forward: Forward, options: Options) -> Differentiate:
    forward_pass = make_forward_pass(forward, options)

    def differentiate(
        variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
    ) -> tuple[BatchData, Mean, Variables, Any]:
        def loss_of(params: Any) -> tuple[jax.Array, tuple[BatchData, Mean, Variables]]:
            results = forward_pass({**variables, "params": params}, batch, key, False)
            loss = results[1]
            if of_sum:
                return loss.total, results
            # Here the division costs nothing; of the gradients it would be a pass over all.
            return loss.total / jnp.where(loss.weight > 0, loss.weight, 1.0), results

        (_, results), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        return *results, gradients

    return differentiate


class _TwoPrograms(CompiledStep):
    """A training step whose gradients and whose update are two programs, for single batches.

    Parameters
    ----------
    whole : callable
        The step as one function, for `Stacked` batches.
    gradients, update : CompiledStep
        The programs.
    **jit_options
        For `whole`.
    """

    def __init__(
        self,
        whole: Callable[..., Any],
        gradients: CompiledStep,
        update: CompiledStep,
        **jit_options: Any,
    ) -> None:
        super().__init__(whole, "training", **jit_options)
        gradients.compilations = update.compilations = self.compilations
        self._gradients = gradients
        self._update = update

    def __call__(self, state: TrainState, batch: Any, flush: jax.Array) -> Any:
        """Run the step."""
        if isinstance(batch, Stacked):
            return super().__call__(state, batch, flush)
        found, outputs = self._gradients(state, batch)
        state, stats = self._update(state, found, flush)
        return state, stats._replace(outputs=outputs)


def _compiler_options(mesh: Mesh) -> dict[str, str] | None:
    """Return what XLA is told so that gradient checkpointing saves memory on every platform.

    On the CPU it removes the barriers between what is computed first and what is computed again,
    then merges both: the time would be spent and nothing saved.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_disable_hlo_passes": "cse_barrier_expander"} if on_cpu else None
