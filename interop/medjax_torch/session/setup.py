"""Setup of a session: conversion, first batch, state, loaders and steps."""

from __future__ import annotations

import logging
from pathlib import Path

import jax

from medjax.callbacks import CallbackList
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.progress import Progress, check_position
from medjax.checkpoint.space import bytes_of
from medjax.loop.plan import Plan, Start
from medjax.loop.request import RunRequest, all_callbacks
from medjax.loop.resume import OPTIMIZER_RATE
from medjax.loop.run import Run
from medjax.loop.setup import check_agreement, data_record, groups_of, initial_state
from medjax.runtime.preemption import Preemption
from medjax.state import TrainState
from medjax.step import TrainStep
from medjax_torch.batches import check_draws, expect_draws, first_batch, reseed
from medjax_torch.conversion import BatchAdapter, ConvertedComponent
from medjax_torch.conversion.host_evaluation import check_outputs
from medjax_torch.optimizers.horizon import warn_of_interval
from medjax_torch.session.ahead import Ahead
from medjax_torch.session.assembly import Assembly, Parts
from medjax_torch.session.contract import warn_of_gradients
from medjax_torch.session.differing_states import in_torchs_terms
from medjax_torch.session.feed import Feed
from medjax_torch.session.flags import resume_flags
from medjax_torch.session.hyperparameters import resume_torch
from medjax_torch.session.kept import Kept
from medjax_torch.session.ladders import ladders_record, restore_ladders
from medjax_torch.session.run import TorchRun
from medjax_torch.session.session import Session
from medjax_torch.session.steps import ScheduledStep, StepEnds, WatchedEvalStep, WatchedStep
from medjax_torch.session.torch_settings import torch_settings
from medjax_torch.session.trainer_protocol import TrainerProtocol

logger = logging.getLogger("medjax")


def set_up(
    trainer: TrainerProtocol,
    store: CheckpointStore,
    preemption: Preemption,
    resume: str | Path | None,
) -> TorchRun:
    """Assemble a run of the trainer, from its beginning or from the position of a checkpoint.

    Parameters
    ----------
    trainer : TrainerProtocol
        Provides component, data, optimizer and options.
    store : CheckpointStore
        The checkpoints of the run.
    preemption : Preemption
        Checked after every batch.
    resume : "auto", path or None
        See ``Trainer.train``.
    """
    warn_of_gradients(trainer.optimizer)
    preparation = _prepared(trainer, store, resume)
    plan = _plan_of(trainer)
    assembly = Assembly(trainer, preparation, plan)
    parts = assembly.parts()
    kept = Kept(preparation.converted, trainer.train_dataloader, trainer.eval_dataloader)
    ends = StepEnds()
    callbacks = all_callbacks(trainer.callback, trainer.config, trainer.options).callbacks
    request = RunRequest(
        component=parts.component,
        config=trainer.config,
        options=trainer.options,
        mesh=preparation.mesh,
        schedule=parts.schedule,
        callback=CallbackList([*callbacks, *kept.callbacks, ends]),
        metrics_computer=trainer.metrics_computer,
        resume=resume,
    )
    state, progress = _state_of(trainer, request, parts, store, preparation.converted)
    preparation.converted.host_draws.seed = progress.seed
    nb_batches = len(trainer.train_dataloader)
    start = Start.of(state, progress, nb_batches, trainer.config)
    programs = assembly.programs(parts, state)
    session = Session(preparation.converted, assembly, parts.link, programs, state, progress)
    ends.session = session
    several = WatchedStep(session, several=True)
    eval_step = preparation.eval_step(with_outputs=trainer.metrics_computer is not None)
    groups = None if _steps_by_update(trainer) else groups_of(request, several)
    ahead = Ahead(
        session, preparation, trainer.train_dataloader, trainer.eval_dataloader, eval_step
    )
    run = Run(
        request=request,
        plan=Plan.of(nb_batches, trainer.config, trainer.options, start),
        train_loader=Feed(
            trainer.train_dataloader,
            preparation,
            train=True,
            before=ahead if groups is None else None,
            kept=kept,
            each=None if groups is None else session.note_settings,
            after=None if groups is None else session.leave_early,
        ),
        eval_loader=Feed(trainer.eval_dataloader, preparation, train=False),
        train_step=_train_step(trainer, session),
        groups=groups,
        eval_step=WatchedEvalStep(eval_step, session),
        unpad=preparation.unpad,
        store=store,
        preemption=preemption,
        # The file of a torch optimizer contains the moments a second time.
        more_checkpoint_bytes=0 if parts.link is None else bytes_of(state.opt_state),
    )
    return TorchRun(parts=run, trainer=trainer, session=session, preparation=preparation, kept=kept)


def _prepared(
    trainer: TrainerProtocol, store: CheckpointStore, resume: str | Path | None
) -> BatchAdapter:
    """Convert the component and compare it with torch on the first batch."""
    config, options = trainer.config, trainer.options
    if jax.process_count() > 1 and config.seed is None:
        msg = (
            "TrainerConfig.seed is None with several processes; expected a seed, so that torch "
            "draws the same numbers in each of them"
        )
        raise ValueError(msg)
    check_agreement(
        config,
        options,
        trainer.mesh,
        items=len(trainer.train_dataloader.dataset),  # type: ignore[arg-type]
        eval_items=len(trainer.eval_dataloader.dataset),  # type: ignore[arg-type]
        resume=resume,
    )
    checkpoint = None if resume is None else store.find(resume)
    if checkpoint is not None:
        restore_ladders(trainer, checkpoint.record)
    preparation = trainer.prepare()
    if checkpoint is not None:
        resume_flags(checkpoint.record, preparation.converted)
    preparation.converted.refresh()
    check_draws(trainer.train_dataloader)
    batch = first_batch(trainer.train_dataloader)
    expect_draws(trainer.eval_dataloader, of=trainer.train_dataloader)
    graph = preparation.first(batch, train=True)
    if trainer.metrics_computer is not None and config.do_metrics_in_training:
        check_outputs(graph)
    return preparation


def _plan_of(trainer: TrainerProtocol) -> Plan:
    """Plan the run, and warn if the scheduler is made for a different number of steps."""
    plan = Plan.of(len(trainer.train_dataloader), trainer.config, trainer.options)
    warn_of_interval(
        trainer.lr_scheduler,
        trainer.options.lr_scheduler_interval,
        nb_epochs=plan.nb_epochs,
        nb_updates=plan.nb_updates,
        warn=logger.warning,
    )
    return plan


def _state_of(
    trainer: TrainerProtocol,
    request: RunRequest,
    parts: Parts,
    store: CheckpointStore,
    converted: ConvertedComponent,
) -> tuple[TrainState, Progress]:
    """Return state and progress, and make torch's optimizer, scheduler and data order agree."""
    config, options, loader = trainer.config, trainer.options, trainer.train_dataloader
    nb_items = len(loader.dataset)  # type: ignore[arg-type]
    nb_evaluated = len(trainer.eval_dataloader.dataset)  # type: ignore[arg-type]
    data = data_record(nb_items, config, options, nb_evaluated=nb_evaluated)
    data["order"] = options.order
    as_set = torch_settings(trainer.optimizer, trainer.lr_scheduler)
    rate = {} if parts.link is None else {OPTIMIZER_RATE: parts.link.learning_rate}
    with in_torchs_terms(store, request.resume, converted, as_set):
        state, progress = initial_state(request, store, data, {**as_set, **rate})
    progress = progress._replace(ladders=ladders_record(trainer))
    check_position(progress, len(loader))
    if store.resumed is not None:
        resume_torch(store.resumed, trainer, as_set, int(state.step))
    for each in (loader, trainer.eval_dataloader):
        reseed(each, progress.seed)
    if parts.link is not None:
        is_fresh = store.resumed is None
        state = parts.link.adopt(state) if is_fresh else parts.link.pushed(state)
    return state, progress


def _steps_by_update(trainer: TrainerProtocol) -> bool:
    return trainer.options.lr_scheduler_interval == "step"


def _train_step(trainer: TrainerProtocol, session: Session) -> TrainStep:
    step = WatchedStep(session)
    if trainer.lr_scheduler is None or not _steps_by_update(trainer):
        return step
    return ScheduledStep(
        step,
        trainer.lr_scheduler,
        session.state,
        accumulation=trainer.config.gradient_accumulation_steps,
        may_skip=trainer.options.on_non_finite == "skip",
    )
