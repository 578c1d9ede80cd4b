"""What a component keeps from one run to the next: its optimizer and its compiled steps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from medjax.compiled import CompiledStep
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.schedules import Schedule
from medjax.scores import LengthAxes
from medjax.state import TrainState, make_optimizer
from medjax.step import make_eval_step, make_train_step


class Steps(NamedTuple):
    """The programs of a run.

    Attributes
    ----------
    train, eval : CompiledStep
        The steps.
    axes : dict
        What an `Unpadder` has found out.
    """

    train: CompiledStep
    eval: CompiledStep
    axes: dict[Any, LengthAxes]


def kept_optimizer(component: TrainableComponent, options: Options) -> optax.GradientTransformation:
    """Return the optimizer of `make_optimizer`, the same one for equal options."""
    return component.kept("optimizer", traced(options), lambda: make_optimizer(component, options))


def kept_steps(
    component: TrainableComponent,
    state: TrainState,
    *,
    config: TrainerConfig,
    options: Options,
    schedule: Schedule,
    warmup: int,
    rate: Any,
    mesh: Mesh,
    scored: bool,
) -> Steps:
    """Return the steps of a run, those of an earlier one with this component if they are the same.

    Parameters
    ----------
    component, config, options, mesh
        As for `train`.
    state : TrainState
        The state they will run on.
    schedule : Schedule
        With its warm-up.
    warmup : int
        Updates of the warm-up.
    rate : callable
        The rate of the schedule without it.
    scored : bool
        Whether there is a metrics computer.
    """
    with_outputs = scored and config.do_metrics_in_training
    accumulation = config.gradient_accumulation_steps

    def make() -> Steps:
        return Steps(
            make_train_step(
                state,
                schedule=schedule,
                options=options,
                accumulation=accumulation,
                mesh=mesh,
                with_outputs=with_outputs,
            ),
            make_eval_step(component.forward, options=options, mesh=mesh, with_outputs=scored),
            {},
        )

    key = (
        *(traced(options), rate, warmup, accumulation, mesh, scored, with_outputs),
        layout_of(state),
    )
    return component.kept("steps", key, make)


def layout_of(state: TrainState) -> Any:
    """Return structure, shapes, dtypes and shardings of a state, to be compared."""
    kinds = [(leaf.shape, leaf.dtype, leaf.sharding) for leaf in jax.tree.leaves(state)]
    return jax.tree.structure(state), kinds


def traced(options: Options) -> Options:
    """Return options without what no program depends on."""
    return dataclasses.replace(
        options, log_dir=None, early_stopping_patience=None, save_interval_steps=None
    )
