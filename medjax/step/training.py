"""The training step: pure, jitted, donated."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from medjax import sharding
from medjax.batch import BatchData
from medjax.component import Forward, Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.runtime import Compilation, CompiledStep
from medjax.runtime.lent import owned
from medjax.schedules import Schedule, as_schedule
from medjax.state import TrainState
from medjax.step.compiler import compiled_for
from medjax.step.due import UPDATE_DUE, split_update_due
from medjax.step.forward import make_forward_pass
from medjax.step.separate import SeparateUpdate
from medjax.step.update import BatchGradients, StepStats, Update, make_update
from medjax.target import platform_of

LARGE = 1_000_000
"""Parameters from which on the update is a program of its own.

It is the same for batches of all shapes, and compiling it takes half as long as the gradients of a
batch. Starting a second program takes tens of microseconds, which only a small model would notice.
"""

OneProgram = CompiledStep[[TrainState, BatchData], tuple[TrainState, StepStats]]
"""A training step that is one program."""


class Differentiate(Protocol):
    """Runs a batch forward and backward."""

    def __call__(
        self, variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
    ) -> tuple[BatchData, Mean, Variables, optax.Updates]:
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
    schedule: Schedule | optax.Schedule | None = None,
    options: Options | None = None,
    accumulation: int = 1,
    mesh: Mesh | None = None,
    with_outputs: bool = False,
    separate_update: bool | None = None,
    differentiate: Differentiate | None = None,
) -> OneProgram | SeparateUpdate:
    """Make ``train_step(state, batch) -> (state, StepStats)``.

    Parameters
    ----------
    state : TrainState
        The state it will run on, or its abstract value; gives shapes and shardings. If its `losses`
        are an `EpochLoss`, which suits batches grouped by length, the gradient of an update is
        divided by what updates weigh on average, not by what this one weighs, so that labels in
        short items do not count more. `train` does so; a loop of your own begins with
        ``state.replace(losses=EpochLoss.empty())`` and goes on to the next epoch with
        ``state.replace(losses=state.losses.next_epoch())``.
    schedule : Schedule or optax schedule, optional
        Gives the learning rate of each update; by default that of the state.
    options : Options, optional
        Precision, loss arithmetic and what to do with a batch that is not finite.
    accumulation : int, default=1
        Batches that make one update. If more than one, every batch has to be marked by
        `with_update_due`, the last of an epoch with True.
    mesh : jax.sharding.Mesh, optional
        Mesh of `make_mesh`, which is the default.
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
    OneProgram or SeparateUpdate
        A pure function that takes over (donates) its state. `batch` has one row axis, split over
        the mesh. It raises ValueError for a state whose optimizer or component is another object
        than that of `state`, even if both were made alike.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    traced = _traced(state, schedule, options, accumulation, differentiate)
    if separate_update is None:
        nb_parameters = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
        separate_update = nb_parameters >= LARGE
    one_program = _one_program_options(state, options, mesh, is_large=separate_update)
    if not separate_update:
        return CompiledStep(traced.step(with_outputs=with_outputs), "training", **one_program)
    layout, everywhere = one_program["out_shardings"]
    # XLA chooses the layout of the collections: which of them come back is not known yet.
    gradients_layout = BatchGradients(layout.params, everywhere, None)  # type: ignore[arg-type]
    compilations: list[Compilation] = []
    return SeparateUpdate(
        CompiledStep(
            traced.gradients(with_outputs=with_outputs),
            "training",
            compilations=compilations,
            out_shardings=(gradients_layout, everywhere),
            **compiled_for(mesh, options, is_large=True),
        ),
        CompiledStep(
            traced.update,
            "training",
            subject="the update of any batch",
            compilations=compilations,
            **one_program,
        ),
        accumulates=accumulation > 1,
        waits=platform_of(mesh) == "cpu",
    )


def make_train_steps(
    state: TrainState,
    *,
    schedule: Schedule | optax.Schedule | None = None,
    options: Options | None = None,
    accumulation: int = 1,
    mesh: Mesh | None = None,
    differentiate: Differentiate | None = None,
) -> OneProgram:
    """Make ``train_steps(state, batches) -> (state, StepStats)``: several steps in one call.

    The parameters are those of `make_train_step`.

    Returns
    -------
    OneProgram
        A pure function that takes over (donates) its state. `batches` is what `stack` returns; the
        last of them gives the stats, without outputs.
    """
    mesh = sharding.make_mesh() if mesh is None else mesh
    traced = _traced(state, schedule, options, accumulation, differentiate)
    step = traced.step(with_outputs=False)

    def train_steps(state: TrainState, batches: BatchData) -> tuple[TrainState, StepStats]:
        state, stats = jax.lax.scan(step, state, batches)
        return state, jax.tree.map(lambda leaf: leaf[-1], stats)

    return CompiledStep(train_steps, "training", **_one_program_options(state, options, mesh))


class _Gradients(Protocol):
    def __call__(
        self, state: TrainState, batch: BatchData, /
    ) -> tuple[BatchGradients, BatchData | None]: ...


class _Step(Protocol):
    def __call__(self, state: TrainState, batch: BatchData, /) -> tuple[TrainState, StepStats]: ...


class _StaticFields(NamedTuple):
    """The static fields of a state, on which programs for it depend."""

    apply_fn: Forward
    tx: optax.GradientTransformation


def _check_static_fields(state: TrainState, expected: _StaticFields) -> None:
    """Raise ValueError for a state of other objects than expected; called when a step is traced.

    JAX would refuse the state, too, as its tree is another one than that of the result, but prints
    both alike.
    """
    found = _StaticFields(state.apply_fn, state.tx)
    if found == expected:
        return
    name = "optimizer" if found.tx != expected.tx else "component"
    msg = (
        f"found a state that was made with another {name} object than the one that this training "
        f"step was made for; expected the same object, even if both were made alike. Use the same "
        f"{name} object that made the first state, or make a step for this one with "
        "make_train_step(state)"
    )
    raise ValueError(msg)


class _Traced(NamedTuple):
    """The functions that steps are compiled from, for states with certain static fields."""

    made_for: _StaticFields
    differentiate: Differentiate
    update: Update
    accumulates: bool

    def gradients(self, *, with_outputs: bool) -> _Gradients:
        """Make the first half of a step: the gradients of a batch without its mark."""

        def gradients(
            state: TrainState, batch: BatchData
        ) -> tuple[BatchGradients, BatchData | None]:
            _check_static_fields(state, self.made_for)
            key = jax.random.fold_in(state.key, state.batch_step)
            outputs, loss, collections, slopes = self.differentiate(
                state.variables, batch, key, of_sum=self.accumulates
            )
            contribution = BatchGradients(slopes, loss, collections)
            return contribution, outputs if with_outputs else None

        return gradients

    def step(self, *, with_outputs: bool) -> _Step:
        """Make the step as one function."""
        gradients_of = self.gradients(with_outputs=with_outputs)

        def train_step(state: TrainState, batch: BatchData) -> tuple[TrainState, StepStats]:
            columns, due = split_update_due(batch, accumulates=self.accumulates)
            gradients, outputs = gradients_of(state, columns)
            state, stats = self.update(state, gradients, due)
            return state, stats._replace(outputs=outputs)

        return train_step


def _traced(
    state: TrainState,
    schedule: Schedule | optax.Schedule | None,
    options: Options | None,
    accumulation: int,
    differentiate: Differentiate | None,
) -> _Traced:
    options = options or Options()
    return _Traced(
        _StaticFields(state.apply_fn, state.tx),
        differentiate or _differentiated(owned(state.apply_fn), options),
        make_update(as_schedule(schedule), options, accumulation),
        accumulation > 1,
    )


def _differentiated(forward: Forward, options: Options) -> Differentiate:
    forward_pass = make_forward_pass(forward, options)

    def differentiate(
        variables: Variables, batch: BatchData, key: jax.Array, *, of_sum: bool
    ) -> tuple[BatchData, Mean, Variables, optax.Updates]:
        def loss_of(
            params: optax.Params,
        ) -> tuple[jax.Array, tuple[BatchData, Mean, Variables]]:
            results = forward_pass({**variables, "params": params}, batch, key, False)
            loss = results[1]
            if of_sum:
                return loss.total, results
            # Here the division costs nothing; of the gradients it would be a pass over all.
            return loss.total / jnp.where(loss.weight > 0, loss.weight, 1.0), results

        (_, results), gradients = jax.value_and_grad(loss_of, has_aux=True)(variables["params"])
        return *results, gradients

    return differentiate


def _one_program_options(
    state: TrainState, options: Options | None, mesh: Mesh, *, is_large: bool = False
) -> dict[str, Any]:
    """Return what a program that takes over the state and gives the next one is compiled with."""
    return {
        "hides": (UPDATE_DUE,),
        "keeps": tuple(map(owned, state.tx)),  # the step outlives the state
        "donate_argnums": 0,
        "out_shardings": (sharding.state_shardings(state, mesh), sharding.replicated(mesh)),
        **compiled_for(mesh, options, is_large=is_large),
    }
