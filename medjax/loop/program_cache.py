"""What a component keeps from one run to the next: its optimizer and its compiled steps."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import optax

from medjax.component import TrainableComponent
from medjax.config import Options
from medjax.loop.request import RunRequest
from medjax.loop.scores import KnownAxes
from medjax.state import TrainState, make_optimizer
from medjax.step import EvalStep, TrainStep, make_eval_step, make_train_step, make_train_steps


class Steps(NamedTuple):
    """The programs of a run.

    Attributes
    ----------
    train : TrainStep
        The training step.
    several : TrainStep or None
        Several training steps in one call, if the options ask for that.
    evaluate : EvalStep
        The evaluation step.
    axes : dict
        What an `Unpadder` has learnt of the outputs.
    """

    train: TrainStep
    several: TrainStep | None
    evaluate: EvalStep
    axes: KnownAxes


def kept_optimizer(component: TrainableComponent, options: Options) -> optax.GradientTransformation:
    """Return the optimizer of `make_optimizer`, the same object for equal options."""
    optimizer: optax.GradientTransformation = component.kept(
        "optimizer", traced(options), lambda: make_optimizer(component, options)
    )
    return optimizer


def kept_steps(request: RunRequest, state: TrainState, *, plain_rate: object, warmup: int) -> Steps:
    """Return the steps of a run, reused from an earlier run of the component if they are equal.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do; its schedule includes the warm-up.
    state : TrainState
        The state the steps will run on.
    plain_rate : callable
        The rate of the schedule without the warm-up, by which schedules are compared.
    warmup : int
        Updates of the warm-up.
    """
    component, options, mesh = request.component, request.options, request.mesh
    accumulation = request.config.gradient_accumulation_steps
    is_scored = request.metrics_computer is not None

    def several() -> TrainStep:
        return make_train_steps(
            state,
            schedule=request.schedule,
            options=options,
            accumulation=accumulation,
            mesh=mesh,
        )

    def make() -> Steps:
        return Steps(
            train=make_train_step(
                state,
                schedule=request.schedule,
                options=options,
                accumulation=accumulation,
                mesh=mesh,
                with_outputs=request.scores_training,
            ),
            several=several() if options.steps_per_dispatch > 1 else None,
            evaluate=make_eval_step(
                component.forward, options=options, mesh=mesh, with_outputs=is_scored
            ),
            axes={},
        )

    settings = (traced(options), plain_rate, warmup, accumulation, mesh, is_scored)
    key = (*settings, request.scores_training, layout_of(state))
    steps: Steps = component.kept("steps", key, make)
    return steps


def layout_of(state: TrainState) -> tuple[object, ...]:
    """Return structure, shapes, dtypes and shardings of a state, to be compared."""
    kinds = [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(state)]
    return jax.tree.structure(state), kinds


def traced(options: Options) -> Options:
    """Reset the options that no program depends on."""
    return dataclasses.replace(
        options,
        log_dir=None,
        early_stopping_patience=None,
        save_interval_steps=None,
        verify_padding=True,
    )
