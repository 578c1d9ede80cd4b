"""Run: everything that stays the same while a run goes on, and how it is put together."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from medjax import sharding
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
from medjax.data import DataLoader, Dataset, get_dataloader, length_of
from medjax.metrics.computer import MetricsComputer
from medjax.preemption import Preemption
from medjax.progress import Progress, restore_progress
from medjax.schedules import Schedule, with_warmup
from medjax.scores import Scores, Unpadder
from medjax.state import TrainState, create_state, make_optimizer
from medjax.step import CompiledStep, make_eval_step, make_train_step


class Plan(NamedTuple):
    """How far a run goes.

    Attributes
    ----------
    nb_epochs : int
        Epochs, the last of which may be cut short.
    nb_updates : int
        Updates of the optimizer, all in all.
    last_stop : int
        Batches of the last epoch.
    """

    nb_epochs: int
    nb_updates: int
    last_stop: int

    @classmethod
    def of(cls, nb_items: int, config: TrainerConfig, options: Options) -> Plan:
        """Return the plan for a training set of `nb_items` items."""
        accumulation = config.gradient_accumulation_steps
        nb_batches = -(-nb_items // config.batch_size)
        per_epoch = -(-nb_batches // accumulation)
        nb_updates = per_epoch * config.nb_training_epochs
        if options.max_steps is not None:
            nb_updates = min(nb_updates, options.max_steps)
        nb_epochs = -(-nb_updates // per_epoch)
        in_last = nb_updates - (nb_epochs - 1) * per_epoch
        return cls(nb_epochs, nb_updates, min(in_last * accumulation, nb_batches))


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run, made by `start`."""

    component: TrainableComponent
    config: TrainerConfig
    options: Options
    plan: Plan
    mesh: Mesh
    schedule: Schedule
    train_loader: DataLoader
    eval_loader: DataLoader | None
    train_step: CompiledStep
    eval_step: CompiledStep
    metrics_computer: MetricsComputer | None
    unpad: Unpadder
    callback: CallbackList
    store: CheckpointStore
    preemption: Preemption

    def scores(self, columns: dict[str, list[Any]] | None = None) -> Scores | None:
        """Return a new collection of scores, None without a metrics computer."""
        if self.metrics_computer is None:
            return None
        return Scores(self.metrics_computer, self.unpad, columns)


def all_callbacks(callback: Any, config: TrainerConfig, options: Options) -> CallbackList:
    """Return the user's callbacks, or the printer, with those that options ask for."""
    chosen = as_callback_list(DefaultPrinterCallback() if callback is None else callback)
    callbacks = list(chosen.callbacks)
    if jax.process_index() != 0:
        callbacks = [each for each in callbacks if not isinstance(each, DefaultPrinterCallback)]
    elif options.log_dir is not None:
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
    plan = Plan.of(length_of(train_data), config, options)
    schedule = with_warmup(schedule, _warmup_steps(options, plan))
    state, progress = _start_state(
        component, config, options, schedule, mesh, store, resume, length_of(train_data)
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

    train_loader = loader(train_data, shuffle=True)
    scored = metrics_computer is not None
    run = Run(
        component=component,
        config=config,
        options=options,
        plan=plan,
        mesh=mesh,
        schedule=schedule,
        train_loader=train_loader,
        eval_loader=None if eval_data is None else loader(eval_data, shuffle=False),
        train_step=make_train_step(
            state,
            schedule=schedule,
            options=options,
            accumulation=config.gradient_accumulation_steps,
            mesh=mesh,
            with_outputs=scored and config.do_metrics_in_training,
        ),
        eval_step=make_eval_step(
            *(state.variables, component.forward),
            options=options,
            mesh=mesh,
            with_outputs=scored,
        ),
        metrics_computer=metrics_computer,
        unpad=Unpadder(component.forward, state.variables, train_loader.ragged),
        callback=callback,
        store=store,
        preemption=preemption,
    )
    return run, state, progress


def _warmup_steps(options: Options, plan: Plan) -> int:
    warmup = options.warmup_steps
    return warmup if isinstance(warmup, int) else round(warmup * plan.nb_updates)


def _start_state(
    component: TrainableComponent,
    config: TrainerConfig,
    options: Options,
    schedule: Schedule,
    mesh: Mesh,
    store: CheckpointStore,
    resume: Any,
    nb_items: int,
) -> tuple[TrainState, Progress]:
    """Return state and progress, from a checkpoint if one is asked for and there.

    The order of precedence: the checkpoint of `resume`; with "auto" and none there, the variables
    of ``component.init``.
    """
    seed = config.seed if config.seed is not None else secrets.randbits(32)
    schedule_state = schedule.init(config.learning_rate)
    state = create_state(
        component,
        make_optimizer(component, options),
        seed=seed,
        learning_rate=schedule_state["learning_rate"],
        accumulates=config.gradient_accumulation_steps > 1,
    )
    data = {
        "items": nb_items,
        "batch_size": config.batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        "length_window": options.length_window,
    }
    check_storable(state)  # now, rather than at the first checkpoint, an epoch later
    progress = Progress(seed=seed, data=data, schedule=schedule_state)
    layout = sharding.state_shardings(state, mesh)
    if resume is not None:
        restored = store.restore(resume, state, layout)
        if restored is not None:
            if config.seed is None:
                progress = progress._replace(seed=restored[1]["seed"])
            return restored[0], restore_progress(restored[1], progress)
    return sharding.put(state, layout), progress
