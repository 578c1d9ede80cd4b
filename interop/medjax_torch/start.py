"""Putting a session together: conversion, first batch, state, loaders and steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import optax

from medjax.checkpoint import CheckpointStore
from medjax.compiled import CompiledStep
from medjax.loop.kept import layout_of, traced
from medjax.loop.plan import Plan
from medjax.loop.start import (
    all_callbacks,
    check_agreement,
    data_record,
    start_state,
    warmup_steps,
    with_kept_rate,
)
from medjax.preemption import Preemption
from medjax.progress import check_position
from medjax.reads import reads
from medjax.schedules import with_warmup
from medjax.state import TrainState
from medjax.step import make_train_step
from medjax_torch.batches import first_batch, reseed
from medjax_torch.component import ConvertedComponent
from medjax_torch.feed import Feed
from medjax_torch.host_evaluation import check_outputs
from medjax_torch.hyperparameters import resume_torch, torch_settings
from medjax_torch.modules import check_reachable
from medjax_torch.optimizers.horizon import warn_of_interval
from medjax_torch.optimizers.link import OptimizerLink
from medjax_torch.session import Session, TorchRun, WatchedStep

logger = logging.getLogger("medjax")


def start(
    trainer: Any, store: CheckpointStore, preemption: Preemption, resume: str | Path | None
) -> TorchRun:
    """Return a run of the trainer, at its beginning or where a checkpoint stands.

    Parameters
    ----------
    trainer : Trainer
        Gives component, data, optimizer and options.
    store : CheckpointStore
        Where checkpoints are.
    preemption : Preemption
        Asked after every batch.
    resume : "auto", path or None
        See ``Trainer.train``.
    """
    config, options = trainer.config, trainer.options
    if jax.process_count() > 1 and config.seed is None:
        msg = (
            "with several processes TrainerConfig.seed is None; expected a seed, so that torch "
            "draws the same in each of them"
        )
        raise ValueError(msg)
    preparation = trainer.prepare()
    converted, mesh = preparation.converted, preparation.mesh
    check_agreement(
        *(config, options, mesh),
        items=len(trainer.train_dataloader.dataset),
        eval_items=len(trainer.eval_dataloader.dataset),
        resume=resume,
    )
    graph = preparation.first(first_batch(trainer.train_dataloader), train=True)
    with_outputs = trainer.metrics_computer is not None and config.do_metrics_in_training
    if with_outputs:
        check_outputs(graph)
    link = _link(trainer.optimizer, converted, set(graph.gradients))

    def configure_optimizer(learning_rate: Any) -> optax.GradientTransformation:
        return trainer.optimizer if link is None else link.configure(learning_rate)

    rule = trainer.optimizer if link is None else link.rule
    component = preparation.trainable(rule, configure_optimizer)
    plan = Plan.of(len(trainer.train_dataloader), config, options)
    warn_of_interval(
        *(trainer.lr_scheduler, options.lr_scheduler_interval),
        nb_epochs=plan.nb_epochs,
        nb_updates=plan.nb_updates,
        warn=logger.warning,
    )
    warmup = warmup_steps(options, plan)
    schedule = with_warmup(with_kept_rate(component, trainer.schedule), warmup)
    if link is not None:
        first_rate = link.learning_rate
        # torch's optimizer and scheduler hold the rate.
        schedule = schedule._replace(
            init=lambda rate: trainer.schedule.init(first_rate), resume=lambda saved: saved
        )
    data = data_record(len(trainer.train_dataloader.dataset), config, options)
    as_set = torch_settings(trainer.optimizer, trainer.lr_scheduler)
    state, progress = start_state(
        *(component, config, options, schedule, mesh),
        store=store,
        resume=resume,
        data={**data, "order": options.order},
        metrics_computer=trainer.metrics_computer,
        more_settings=as_set,
    )
    check_position(progress, len(trainer.train_dataloader))
    if store.resumed is not None:
        resume_torch(store.resumed, trainer.optimizer, trainer.lr_scheduler, as_set)
    reseed(trainer.train_dataloader, progress.seed)
    session = Session(converted, link, _in_force(state, link, store), progress)
    accumulation = config.gradient_accumulation_steps

    def make_step() -> CompiledStep:
        made = make_train_step(
            session.state,
            schedule=schedule,
            options=preparation.step_options,
            accumulation=accumulation,
            mesh=mesh,
            with_outputs=with_outputs,
            differentiate=converted.differentiate(options),
        )
        preparation.steps.append(made)
        return made

    settings = traced(options), reads(trainer.schedule.rate), warmup, accumulation, with_outputs
    step = component.kept("steps", (*settings, layout_of(session.state)), make_step)
    by_step = options.lr_scheduler_interval == "step"
    return TorchRun(
        component=component,
        config=config,
        options=options,
        plan=plan,
        mesh=mesh,
        schedule=schedule,
        train_loader=Feed(trainer.train_dataloader, preparation, train=True),
        eval_loader=Feed(trainer.eval_dataloader, preparation, train=False),
        train_step=WatchedStep(
            *(step, session, trainer.lr_scheduler if by_step else None),
            accumulation=accumulation,
            may_skip=options.on_non_finite == "skip",
        ),
        eval_step=preparation.eval_step(with_outputs=trainer.metrics_computer is not None),
        metrics_computer=trainer.metrics_computer,
        unpad=preparation.unpad,
        callback=all_callbacks(trainer.callback, config, options),
        store=store,
        preemption=preemption,
        trainer=trainer,
        session=session,
        preparation=preparation,
    )


def _link(
    optimizer: Any, converted: ConvertedComponent, with_gradient: set[str]
) -> OptimizerLink | None:
    """Return the link to a torch optimizer, None if the component made one of optax."""
    if isinstance(optimizer, optax.GradientTransformation):
        return None
    check_reachable(converted.found, optimizer)
    names = {tensor: name for name, tensor in converted.found.parameters.items()}
    return OptimizerLink(optimizer, names, set(names.values()) - with_gradient)


def _in_force(state: TrainState, link: OptimizerLink | None, store: CheckpointStore) -> TrainState:
    """Return the state with what the torch optimizer says, moments included at a fresh start."""
    if link is None:
        return state
    return link.sync(state) if store.resumed is not None else link.adopt(state)
