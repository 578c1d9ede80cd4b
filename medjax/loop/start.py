"""Putting a run together: callbacks, state, loaders and steps."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import secrets
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from medjax import distributed, sharding
from medjax.callbacks import (
    CallbackList,
    DefaultPrinterCallback,
    EarlyStopping,
    MetricsWriter,
    as_callback_list,
)
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.arrays import check_storable
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import DataLoader, Dataset, expand, get_dataloader
from medjax.data.loader import ladder_of
from medjax.loop.contract import (
    check_component,
    check_metric_names,
    check_wanted_metrics,
    sample_scores,
)
from medjax.loop.kept import kept_optimizer, kept_steps
from medjax.loop.plan import Plan
from medjax.loop.resume import SHAPING_OPTIONS, reconcile, restore_state, settings_of, with_settings
from medjax.loop.run import Run
from medjax.metrics.computer import MetricsComputer
from medjax.preemption import Preemption
from medjax.progress import Progress, check_position, read_progress
from medjax.reads import reads
from medjax.schedules import Schedule, with_warmup
from medjax.scores import Unpadder
from medjax.state import (
    TrainState,
    abstract_state,
    create_state,
    create_state_on,
    make_optimizer,
)


def all_callbacks(callback: Any, config: TrainerConfig, options: Options) -> CallbackList:
    """Return the user's callbacks, or the printer, with those that options ask for."""
    chosen = as_callback_list(DefaultPrinterCallback() if callback is None else callback)
    callbacks = list(chosen.callbacks)
    if options.log_dir is not None:
        callbacks.append(MetricsWriter(options.log_dir))
    if options.early_stopping_patience is not None:
        callbacks.append(
            EarlyStopping(
                config.checkpoint_metric,
                options.early_stopping_patience,
                threshold=options.early_stopping_threshold,
                minimize=config.minimize_checkpoint_metric,
            )
        )
    return CallbackList(callbacks)


def start(
    component: TrainableComponent,
    config: TrainerConfig,
    train_data: Dataset,
    eval_data: Dataset | None,
    *,
    metrics_computer: MetricsComputer | None,
    schedule: Schedule,
    callback: CallbackList,
    options: Options,
    mesh: Mesh,
    resume: Any,
    store: CheckpointStore,
    preemption: Preemption,
    at_end: contextlib.ExitStack,
) -> tuple[Run, TrainState, Progress]:
    """Return the parts of a run with the state and progress it starts or goes on from.

    The parameters are those of `train`; `at_end` is told to close what was opened.
    """
    wanted = check_wanted_metrics(
        config,
        options,
        needs_metric=schedule.needs_metric,
        has_eval_data=eval_data is not None,
        metrics_computer=metrics_computer,
    )
    train_data = expand(train_data, component, training=True)
    eval_data = None if eval_data is None else expand(eval_data, component, training=False)
    nb_items = len(train_data)
    check_agreement(
        config,
        options,
        mesh,
        items=nb_items,
        eval_items=None if eval_data is None else len(eval_data),
        resume=resume,
    )
    nb_batches = -(-nb_items // config.batch_size)
    plan = Plan.of(nb_batches, config, options)
    schedule = with_kept_rate(component, schedule)
    warmup, rate = warmup_steps(options, plan), schedule.rate
    schedule = with_warmup(schedule, warmup)
    state, progress = start_state(
        *(component, config, options, schedule, mesh),
        store=store,
        resume=resume,
        data=data_record(nb_items, config, options),
        metrics_computer=metrics_computer,
    )
    check_position(progress, nb_batches)
    scored = metrics_computer is not None
    steps = kept_steps(
        *(component, state),
        config=config,
        options=options,
        schedule=schedule,
        warmup=warmup,
        rate=rate,
        mesh=mesh,
        scored=scored,
    )

    def loader(data: Dataset, *, shuffle: bool) -> DataLoader:
        made = get_dataloader(
            *(data, component, config),
            shuffle=shuffle,
            seed=progress.seed,
            options=options,
            mesh=mesh,
        )
        at_end.callback(made.close)
        return made

    check_component(component, state.variables, train_data, ladder_of(options))
    if wanted.keys() - {"loss"} and eval_data is not None:
        scores = sample_scores(
            component, state.variables, eval_data, metrics_computer, config.batch_size
        )
        if scores:
            check_metric_names(wanted, scores)
    train_loader = loader(train_data, shuffle=True)
    run = Run(
        component=component,
        config=config,
        options=options,
        plan=plan,
        mesh=mesh,
        schedule=schedule,
        train_loader=train_loader,
        eval_loader=None if eval_data is None else loader(eval_data, shuffle=False),
        train_step=steps.train,
        eval_step=steps.eval,
        known_compilations=(steps.train.nb_compilations, steps.eval.nb_compilations),
        metrics_computer=metrics_computer,
        unpad=Unpadder(component.forward, state.variables, train_loader.ragged, steps.axes),
        callback=callback,
        store=store,
        preemption=preemption,
    )
    return run, state, progress


def check_agreement(config: TrainerConfig, options: Options, mesh: Mesh, **facts: Any) -> None:
    """Compare across processes what they must have in common; ValueError names what differs."""
    fields = {
        f"{type(record).__name__}.{field.name}": getattr(record, field.name)
        for record in (config, options)
        for field in dataclasses.fields(record)
    }
    versions = {f"the version of {name}": found for name, found in distributed.versions().items()}
    distributed.check_agreement(
        {**fields, **facts, **versions, "the mesh": dict(mesh.shape), "devices": mesh.size}
    )


def with_kept_rate(component: TrainableComponent, schedule: Schedule) -> Schedule:
    """Return `schedule` with the rate of an earlier run if it reads what that one read, else anew.

    JAX takes a function that it has seen for the same one, whatever it reads now.
    """
    rate = component.kept("rate", reads(schedule.rate), lambda: functools.partial(schedule.rate))
    return schedule._replace(rate=rate)


def warmup_steps(options: Options, plan: Plan) -> int:
    """Return the number of updates during which the learning rate rises."""
    warmup = options.warmup_steps
    return warmup if isinstance(warmup, int) else round(warmup * plan.nb_updates)


def data_record(nb_items: int, config: TrainerConfig, options: Options) -> dict[str, Any]:
    """Return what the meaning of a position within an epoch depends on."""
    return {
        "items": nb_items,
        "batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "length_window": options.length_window,
    }


def start_state(
    component: TrainableComponent,
    config: TrainerConfig,
    options: Options,
    schedule: Schedule,
    mesh: Mesh,
    *,
    store: CheckpointStore,
    resume: str | Path | None,
    data: dict[str, Any],
    metrics_computer: Any,
    more_settings: dict[str, Any] | None = None,
) -> tuple[TrainState, Progress]:
    """Return state and progress, from a checkpoint if one is asked for and there.

    The order of precedence: the checkpoint of `resume`; with "auto" and none there, the variables
    of ``component.init``.
    """
    drawn = distributed.first_of(str(secrets.randbits(32)))
    seed = config.seed if config.seed is not None else int(drawn)
    schedule_state = schedule.init(config.learning_rate)
    parts: dict[str, Any] = {
        "component": component,
        "optimizer": kept_optimizer(component, options),
        "seed": seed,
        "learning_rate": schedule_state["learning_rate"],
        "accumulates": config.gradient_accumulation_steps > 1,
    }
    state = create_state(**parts) if mesh.size == 1 else abstract_state(**parts)
    check_storable(state)  # now, rather than at the first checkpoint, an epoch later
    settings = settings_of(config, options, schedule, metrics_computer, **(more_settings or {}))
    progress = Progress(seed=seed, data=data, schedule=schedule_state, settings=settings)
    layout = sharding.state_shardings(state, mesh)
    found = None if resume is None else store.find(resume)
    if found is not None:
        saved = read_progress(found.record["progress"])
        if config.seed is None:
            progress = progress._replace(seed=saved.seed)
        progress = reconcile(saved, progress, schedule, config)
        before = {n: saved.settings.get(n, getattr(options, n)) for n in SHAPING_OPTIONS}
        optimizer = make_optimizer(component, dataclasses.replace(options, **before))
        restored = restore_state(store, found, state, mesh, optimizer)
        return _holding(with_settings(restored, saved, progress, mesh), parts), progress
    placed = sharding.put(state, layout) if mesh.size == 1 else create_state_on(mesh, **parts)
    return _holding(placed, parts), progress


def _holding(state: TrainState, parts: dict[str, Any]) -> TrainState:
    return state.holding(parts["component"].forward, parts["optimizer"])
