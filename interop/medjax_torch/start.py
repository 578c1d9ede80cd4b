"""Putting a session together: conversion, first batch, state, loaders and steps."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoint import CheckpointStore
from medjax.loop.plan import Plan
from medjax.loop.start import all_callbacks, check_agreement, data_record, start_state
from medjax.preemption import Preemption
from medjax.progress import check_position
from medjax_torch.assembly import Assembly
from medjax_torch.batches import first_batch, reseed
from medjax_torch.feed import Feed
from medjax_torch.flags import resume_flags
from medjax_torch.host_evaluation import check_outputs
from medjax_torch.hyperparameters import resume_torch, torch_settings
from medjax_torch.kept_values import with_kept_values
from medjax_torch.optimizers.horizon import warn_of_interval
from medjax_torch.run import TorchRun
from medjax_torch.session import Session
from medjax_torch.steps import WatchedEvalStep, WatchedStep

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
    found = None if resume is None else store.find(resume)
    if found is not None:
        resume_flags(found.record, converted)
    converted.refresh()
    graph = preparation.first(first_batch(trainer.train_dataloader), train=True)
    if trainer.metrics_computer is not None and config.do_metrics_in_training:
        check_outputs(graph)
    plan = Plan.of(len(trainer.train_dataloader), config, options)
    warn_of_interval(
        *(trainer.lr_scheduler, options.lr_scheduler_interval),
        nb_epochs=plan.nb_epochs,
        nb_updates=plan.nb_updates,
        warn=logger.warning,
    )
    assembly = Assembly(trainer, preparation, plan)
    parts = assembly.parts()
    data = data_record(len(trainer.train_dataloader.dataset), config, options)
    as_set = torch_settings(trainer.optimizer, trainer.lr_scheduler)
    state, progress = start_state(
        *(parts.component, config, options, parts.schedule, mesh),
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
    if parts.link is not None:
        is_fresh = store.resumed is None
        state = parts.link.adopt(state) if is_fresh else parts.link.sync(state)
    session = Session(converted, assembly, parts.link, state, progress)
    by_step = options.lr_scheduler_interval == "step"
    return TorchRun(
        component=parts.component,
        config=config,
        options=options,
        plan=plan,
        mesh=mesh,
        schedule=parts.schedule,
        train_loader=Feed(trainer.train_dataloader, preparation, train=True),
        eval_loader=Feed(trainer.eval_dataloader, preparation, train=False),
        train_step=WatchedStep(
            *(assembly.step(parts, state), session, trainer.lr_scheduler if by_step else None),
            accumulation=config.gradient_accumulation_steps,
            may_skip=options.on_non_finite == "skip",
        ),
        eval_step=WatchedEvalStep(
            preparation.eval_step(with_outputs=trainer.metrics_computer is not None), session
        ),
        metrics_computer=trainer.metrics_computer,
        unpad=preparation.unpad,
        callback=with_kept_values(all_callbacks(trainer.callback, config, options), converted),
        store=store,
        preemption=preemption,
        trainer=trainer,
        session=session,
        preparation=preparation,
    )
