"""Putting a run together: state, loaders and steps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import secrets
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from medjax import distributed
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.arrays import check_storable
from medjax.checkpoint.progress import EVAL_ITEMS, Progress, check_position, read_progress
from medjax.component import ExpandedData, TrainableComponent, count_parameters
from medjax.config import Options, TrainerConfig
from medjax.data import DataLoader, Dataset, expand, get_dataloader
from medjax.data.make import ladder_of
from medjax.loop.contract import (
    check_metric_names,
    check_schedule_state,
    check_wanted_metrics,
    warn_of_no_updates,
)
from medjax.loop.epochs import Groups
from medjax.loop.initial import InitialState, weighs_updates
from medjax.loop.padding_check import check_padding, is_ready
from medjax.loop.plan import Plan, Start
from medjax.loop.program_cache import Steps, kept_optimizer, kept_steps
from medjax.loop.request import RunRequest
from medjax.loop.resume import (
    HYPERPARAMETERS,
    SHAPING_OPTIONS,
    reconcile,
    restore_state,
    settings_of,
    with_settings,
)
from medjax.loop.run import Run
from medjax.loop.scores import Unpadder, check_free_names
from medjax.loop.self_check import self_check
from medjax.loop.trial import check_component, sample_scores
from medjax.optimizer import configured_hyperparameters
from medjax.runtime import warn_of_other_threads
from medjax.runtime.preemption import Preemption
from medjax.runtime.reads import reads
from medjax.schedules import Schedule, with_warmup
from medjax.state import TrainState, make_optimizer
from medjax.step import TrainStep
from medjax.target import trace_anew


def set_up(
    request: RunRequest,
    train_data: Dataset,
    eval_data: Dataset | None,
    store: CheckpointStore,
    preemption: Preemption,
    at_end: contextlib.ExitStack,
) -> tuple[Run, TrainState, Progress]:
    """Assemble a run with the state and progress it starts or resumes from.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do.
    train_data, eval_data : Dataset
        The user's data.
    store : CheckpointStore
        Its checkpoints.
    preemption : Preemption
        Asked after every batch.
    at_end : contextlib.ExitStack
        Closes what is opened here.
    """
    component, config, options = request.component, request.config, request.options
    wanted = check_wanted_metrics(request, has_eval_data=eval_data is not None)
    train_data = expand(train_data, component, training=True)
    eval_data = None if eval_data is None else expand(eval_data, component, training=False)
    nb_items = len(train_data)
    weights = train_data.weights if isinstance(train_data, ExpandedData) else None
    nb_evaluated = None if eval_data is None else len(eval_data)
    data = data_record(nb_items, config, options, weights, nb_evaluated=nb_evaluated)
    check_agreement(
        config,
        options,
        request.mesh,
        items=nb_items,
        eval_items=nb_evaluated,
        resume=request.resume,
        # The rest of `data` follows from the items and the settings.
        **{"the SHA-256 of the sampling weights": data["sampling"]},
    )
    nb_batches = -(-nb_items // config.batch_size)
    state, progress = initial_state(request, store, data)
    check_position(progress, nb_batches)
    plan = Plan.of(nb_batches, config, options, Start.of(state, progress, nb_batches, config))
    programs = _Programs(request, warmup_steps(options, plan))
    request, steps = programs.of(state)
    ladder = ladder_of(options)
    check_component(component, state.variables, train_data, ladder, options.padding)
    _check_names(request, wanted, state, eval_data)
    asked = dataclasses.replace(
        request, config=dataclasses.replace(config, nb_training_epochs=plan.nb_epochs)
    )
    loader = functools.partial(_loader, asked, progress, count_parameters(state.variables), at_end)
    train_loader = loader(train_data, train=True)
    ladders, eval_loader = {"train": list(train_loader.lengths)}, None
    if eval_data is not None:
        eval_loader = loader(eval_data, train=False)
        ladders["eval"] = list(eval_loader.lengths)
    if options.length_ladder == "fitted":
        progress = progress._replace(ladders=ladders)
    lengths = [length for ladder in ladders.values() for length in ladder]
    check_padding(request, state.variables, train_data, lengths)
    self_check(request, state.variables, train_loader)
    run = Run(
        request=request,
        plan=plan,
        train_loader=train_loader,
        eval_loader=eval_loader,
        train_step=steps.train,
        groups=groups_of(request, steps.several),
        eval_step=steps.evaluate,
        unpad=Unpadder(component.forward, state.variables, train_loader.ragged, steps.axes),
        store=store,
        preemption=preemption,
        strict_scores=True,
        read_outside=programs.read_outside,
        renewed=programs.renewed,
    )
    return run, state, progress


class _Programs(NamedTuple):
    """Makes the programs of a run, again when what they read from outside has changed.

    Attributes
    ----------
    request : RunRequest
        What the run is asked to do; its schedule lacks the warm-up.
    warmup : int
        Updates of the warm-up.
    """

    request: RunRequest
    warmup: int

    def of(self, state: TrainState) -> tuple[RunRequest, Steps]:
        """Return the request with the warm-up, and the programs for a state."""
        schedule = with_kept_rate(self.request.component, self.request.schedule)
        request = dataclasses.replace(self.request, schedule=with_warmup(schedule, self.warmup))
        steps = kept_steps(request, state, plain_rate=schedule.rate, warmup=self.warmup)
        return request, steps

    def read_outside(self) -> object:
        """Return what the programs depend on besides their arguments."""
        component, rate = self.request.component, self.request.schedule.rate
        if is_ready(component):  # frozen, and tens of milliseconds to walk; the optimizer is not
            return reads(component.configure_optimizer, rate)
        return component.read_outside(), reads(rate)

    def renewed(self, run: Run, state: TrainState) -> Run:
        """Return the run with the programs for what they read now."""
        trace_anew()  # the schedule may call a jitted function, whose trace JAX remembers
        request, steps = self.of(state)
        forward, ragged = request.component.forward, set(ladder_of(request.options).fills)
        return dataclasses.replace(
            run,
            request=request,
            train_step=steps.train,
            groups=groups_of(request, steps.several),
            eval_step=steps.evaluate,
            unpad=Unpadder(forward, state.variables, ragged, steps.axes),
        )


def groups_of(request: RunRequest, train_steps: TrainStep | None) -> Groups | None:
    """Return how several batches are trained on in one call; None if each goes alone."""
    size = 1 if request.config.do_metrics_in_training else request.options.steps_per_dispatch
    return None if train_steps is None or size == 1 else Groups(train_steps, size)


def _check_names(
    request: RunRequest, wanted: dict[str, str], state: TrainState, eval_data: Dataset | None
) -> None:
    """Check the names of the metrics on a sample of the evaluation data."""
    if not wanted.keys() - {"loss"} or eval_data is None:
        return
    scores = sample_scores(request, state.variables, eval_data)
    if scores:
        check_free_names(scores)
        check_metric_names(wanted, scores)


def _loader(
    request: RunRequest,
    progress: Progress,
    nb_parameters: int,
    at_end: contextlib.ExitStack,
    data: Dataset,
    *,
    train: bool,
) -> DataLoader:
    loader = get_dataloader(
        data,
        request.component,
        request.config,
        shuffle=train,
        seed=progress.seed,
        options=request.options,
        mesh=request.mesh,
        fitted=progress.ladders.get("train" if train else "eval"),
        nb_parameters=nb_parameters,
    )
    at_end.callback(loader.close)
    return loader


def check_agreement(config: TrainerConfig, options: Options, mesh: Mesh, **facts: object) -> None:
    """Compare across processes what they must have in common; ValueError names what differs."""
    fields = {
        f"{type(record).__name__}.{field.name}": getattr(record, field.name)
        for record in (config, options)
        for field in dataclasses.fields(record)
    }
    versions = {f"the version of {name}": v for name, v in distributed.versions().items()}
    distributed.check_agreement(
        {**fields, **facts, **versions, "the mesh": dict(mesh.shape), "devices": mesh.size}
    )


def with_kept_rate(component: TrainableComponent, schedule: Schedule) -> Schedule:
    """Reuse the rate of an earlier run if it reads what that one read, else make a new function.

    JAX takes a function that it has seen before for unchanged, even if it now reads other values.
    """
    rate = component.kept("rate", reads(schedule.rate), lambda: functools.partial(schedule.rate))
    return schedule._replace(rate=rate)


def warmup_steps(options: Options, plan: Plan) -> int:
    """Return the number of updates during which the learning rate rises."""
    warmup = options.warmup_steps
    return warmup if isinstance(warmup, int) else round(warmup * plan.nb_updates)


Record = dict[str, object]
"""A part of `Progress`, ready for JSON."""


def data_record(
    nb_items: int,
    config: TrainerConfig,
    options: Options,
    weights: np.ndarray | None = None,
    *,
    nb_evaluated: int | None,
) -> Record:
    """Record what the meaning of a position within an epoch depends on, and that of a score."""
    return {
        EVAL_ITEMS: nb_evaluated,
        "items": nb_items,
        "sampling": None if weights is None else hashlib.sha256(weights.tobytes()).hexdigest(),
        "batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "length_window": options.length_window,
        # Earlier versions sorted by length, so their batches were others.
        "grouping": "by padded length" if options.length_window else None,
    }


def initial_state(
    request: RunRequest,
    store: CheckpointStore,
    data: Record,
    more_settings: Record | None = None,
) -> tuple[TrainState, Progress]:
    """Return state and progress, from a checkpoint if one is asked for and exists.

    The order of precedence: the checkpoint of `request.resume`; if that is "auto" and there is
    none, the variables of ``component.init``.

    Parameters
    ----------
    request : RunRequest
        What the run is asked to do; its schedule may lack the warm-up, of which the state that is
        kept between epochs knows nothing.
    store : CheckpointStore
        Its checkpoints.
    data : dict
        From `data_record`.
    more_settings : dict, optional
        Settings of the user besides those of the request, by name.
    """
    config, mesh = request.config, request.mesh
    drawn = distributed.first_of(str(secrets.randbits(32)))
    seed = config.seed if config.seed is not None else int(drawn)
    schedule_state = request.schedule.init(config.learning_rate)
    check_schedule_state(schedule_state)
    initial = InitialState(
        component=request.component,
        optimizer=kept_optimizer(request.component, request.options),
        seed=seed,
        learning_rate=schedule_state["learning_rate"],
        accumulates=config.gradient_accumulation_steps > 1,
        weighs_updates=weighs_updates(request.options),
    )
    template = initial.template(mesh)
    warn_of_other_threads(4 * count_parameters(template.variables))
    check_storable(template)  # rather here than at the first checkpoint, an epoch later
    warn_of_no_updates(initial.optimizer, template.params)
    numbers = configured_hyperparameters(initial.optimizer, template.params, template.opt_state)
    settings = settings_of(request, {**(more_settings or {}), HYPERPARAMETERS: numbers})
    progress = Progress(seed=seed, data=data, schedule=schedule_state, settings=settings)
    checkpoint = None if request.resume is None else store.find(request.resume)
    if checkpoint is None:
        return initial.place(template, mesh), progress
    saved = read_progress(checkpoint.record["progress"])
    if config.seed is None:
        progress = progress._replace(seed=saved.seed)
    progress = reconcile(saved, progress, request)
    before = {n: saved.settings.get(n, getattr(request.options, n)) for n in SHAPING_OPTIONS}
    former = dataclasses.replace(request.options, **before)
    optimizer = make_optimizer(request.component, former)
    nb_updates = saved.batch // config.gradient_accumulation_steps
    state = restore_state(store, checkpoint, template, mesh, optimizer, nb_updates=nb_updates)
    return initial.owned(with_settings(state, saved, progress, mesh)), progress
