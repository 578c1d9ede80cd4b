"""The training loop: the only file that knows the order of events.

Epoch for epoch: train, evaluate, update the learning rate, write the history, tell the callbacks,
save.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optax
from jax.sharding import Mesh

from medjax import distributed, sharding
from medjax.checkpoint import CheckpointStore, Entry
from medjax.checkpoint.retention import best
from medjax.compilation import cached
from medjax.compiled import Compilation
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset
from medjax.heap import keep_memory
from medjax.loop.contract import check_arguments, warn_of_versions
from medjax.loop.run import Metrics, Run
from medjax.loop.start import all_callbacks, start
from medjax.metrics.computer import MetricsComputer
from medjax.preemption import Preemption, ends_briefly
from medjax.progress import Progress
from medjax.schedules import Schedule, as_schedule
from medjax.state import TrainState

logger = logging.getLogger("medjax")


class TrainResult(NamedTuple):
    """What `train` returns.

    Attributes
    ----------
    state : TrainState
        The final state; ``state.variables`` holds the trained weights, those of the last epoch.
    history : list of dict
        ``{"train": {...}, "eval": {...}}`` for each epoch.
    best_checkpoint, last_checkpoint : Path or None
        Folders of the checkpoints kept.
    compilations : list of Compilation
        What the training and the evaluation step were compiled for, and how long that took.
    stop_reason : str or None
        Why a callback ended training, if one did.
    """

    state: TrainState
    history: list[dict[str, dict[str, float]]]
    best_checkpoint: Path | None
    last_checkpoint: Path | None
    compilations: list[Compilation]
    stop_reason: str | None

    @property
    def nb_compilations(self) -> int:
        """How often the training and the evaluation step were compiled."""
        return len(self.compilations)


@ends_briefly
def train(
    component: TrainableComponent,
    config: TrainerConfig,
    train_data: Dataset,
    eval_data: Dataset | None = None,
    *,
    metrics_computer: MetricsComputer | None = None,
    schedule: Schedule | optax.Schedule | None = None,
    callback: Any = None,
    options: Options | None = None,
    mesh: Mesh | None = None,
    resume: str | Path | None = None,
) -> TrainResult:
    """Train a component.

    Parameters
    ----------
    component : TrainableComponent
        What to train.
    config : TrainerConfig
        How to train it.
    train_data, eval_data : Dataset
        Anything with ``__len__`` and ``__getitem__``; without evaluation data there is no best
        checkpoint.
    metrics_computer : MetricsComputer, optional
        Scores the evaluation and, with ``config.do_metrics_in_training``, the training.
    schedule : Schedule or optax schedule, optional
        Learning rate; an optax schedule is taken by step. Constant by default.
    callback : TrainerCallback or sequence of them, optional
        By default `DefaultPrinterCallback`.
    options : Options, optional
        What `config` has no field for.
    mesh : jax.sharding.Mesh, optional
        From `sharding.make_mesh`; by default data-parallel over all devices.
    resume : "auto" or path, optional
        "auto" goes on from the newest sound checkpoint in ``config.output_dir``, or starts afresh
        if there is none; a path goes on from that checkpoint; None starts afresh.

    Returns
    -------
    TrainResult
        State, history and the checkpoints kept.

    Raises
    ------
    ValueError
        If an argument, the data or a metric's name is not what is expected.
    NonFiniteError
        If the loss or a gradient was not finite.
    OutOfMemoryError
        If a device had no memory left for a step; says what to lower.
    CheckpointError
        If a checkpoint cannot be saved or resumed from, the output folder has no room for the
        checkpoints of the run, or another run writes into it.
    SystemExit
        With 128 + the signal's number after SIGTERM or SIGUSR1, once the state is saved.
    KeyboardInterrupt
        After Ctrl-C, once the state is saved; a second Ctrl-C does not wait for that.
    """
    check_arguments(component, config, options, metrics_computer)
    options = options or Options()
    mesh = mesh if mesh is not None else sharding.make_mesh()
    callbacks = all_callbacks(callback, config, options)
    with open_run(config, options) as (store, preemption), contextlib.ExitStack() as at_end:
        run, state, progress = start(
            *(component, config, train_data, eval_data),
            metrics_computer=metrics_computer,
            schedule=as_schedule(schedule),
            callback=callbacks,
            options=options,
            mesh=mesh,
            resume=resume,
            store=store,
            preemption=preemption,
            at_end=at_end,
        )
        held = state.held
        state, progress = train_epochs(run, state, progress)
        return TrainResult(
            *(state.holding(*held), progress.history, store.best, store.last),
            *(run.compilations, callbacks.stop_reason),
        )


@contextlib.contextmanager
def open_run(
    config: TrainerConfig, options: Options
) -> Iterator[tuple[CheckpointStore, Preemption]]:
    """Open a run's output folder and compilation cache, keep memory, and listen to signals."""
    warn_of_versions()
    with (
        keep_memory(),
        cached(options.compilation_cache),
        Preemption() as preemption,
        distributed.Together(),
        CheckpointStore(
            config.output_dir,
            distributed.first_of(secrets.token_hex(8)),
            metric=config.checkpoint_metric,
            minimize=config.minimize_checkpoint_metric,
            keep_all=options.keep_all_checkpoints,
        ) as store,
    ):
        yield store, preemption


def train_epochs(run: Run, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Run the epochs that are left; all that changes goes in and comes out as values.

    Raises
    ------
    CheckpointError
        At once, if the output folder has no room for the checkpoints.
    BaseException
        Whatever ends training early, once the callbacks have been told.
    """
    run.check_space(state, progress)
    try:
        state, progress = _epochs(run, state, progress)
        run.store.wait()
    except BaseException as error:
        try:
            run.callback.on_exception(error)
        except Exception as another:
            error.add_note(f"besides, on_exception failed ({type(another).__name__}: {another})")
        raise
    return state, progress


def _epochs(run: Run, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    run.callback.load_state_dict(progress.callbacks)
    run.callback.resume_stop(progress.stop_reason, progress.stopped_by)
    progress = run.with_callbacks(progress)
    run.callback.on_train_begin(config=run.config)
    if run.store.resumed is not None:
        run.callback.on_resume(
            checkpoint_dir=str(run.store.resumed),
            epoch=progress.epoch,
            step_idx=progress.batch,
            nb_batches=len(run.train_loader),
            nb_epochs=run.plan.nb_epochs,
        )
    while progress.epoch <= run.plan.nb_epochs and not _is_over(run, progress):
        epoch = progress.epoch
        began = time.monotonic()
        run.callback.on_epoch_begin(epoch=epoch)
        state, train_metrics, progress = run.train_phase(state, progress)
        metrics = {"train": train_metrics}
        if run.eval_loader is not None:
            metrics["eval"] = run.eval_phase(state, progress)
            _check_metric(run.config.checkpoint_metric, metrics["eval"])
        eval_metrics = metrics.get("eval", {})
        state, schedule_state = run.next_epoch(state, progress, eval_metrics)
        progress = progress._replace(
            schedule=schedule_state,
            history=[*progress.history, metrics],
            epoch=epoch + 1,
            batch=0,
            columns={},
        )
        run.callback.on_epoch_end(
            metrics=metrics, epoch=epoch, epoch_duration=time.monotonic() - began
        )
        _agree_on_stop(run)
        is_last = epoch == run.plan.nb_epochs or run.callback.stop_reason is not None
        period = run.config.checkpoint_period
        if is_last or (period != 0 and epoch % period == 0):
            metric = eval_metrics.get(run.config.checkpoint_metric)
            run.save(state, progress, epoch=epoch, metric=metric)
    run.store.wait()  # callbacks find the last checkpoint complete
    if jax.process_index() == 0:
        _say_if_best_was_not_saved(run, progress.history)
    run.callback.on_train_end()
    return state, progress


def _is_over(run: Run, progress: Progress) -> bool:
    """Return whether a callback ended training; an epoch that it cut short is still finished."""
    _agree_on_stop(run)
    return run.callback.stop_reason is not None and progress.batch == 0


def _agree_on_stop(run: Run) -> None:
    """Let a stop that a callback of one process asked for be one of all processes."""
    said = distributed.exchange(run.callback.stop_reason or "")
    run.callback.stop_reason = next(filter(None, said), None)


def _check_metric(name: str, metrics: Metrics) -> None:
    """Check the checkpoint metric before anything is saved under it."""
    if name not in metrics:
        msg = f"Checkpoint metric {name!r} not found; the evaluation gave {sorted(metrics)}"
        raise ValueError(msg)
    try:
        float(metrics[name])
    except (TypeError, ValueError):
        msg = f"Checkpoint metric {name!r} is {metrics[name]!r:.60}; expected a number"
        raise ValueError(msg) from None


def _say_if_best_was_not_saved(run: Run, history: list[dict[str, Metrics]]) -> None:
    name, period = run.config.checkpoint_metric, run.config.checkpoint_period
    entries = [
        Entry(epoch, Path(), "", float(row["eval"][name]))
        for epoch, row in enumerate(history, 1)
        if name in row.get("eval", {})
    ]
    found = best(entries, minimize=run.config.minimize_checkpoint_metric)
    if found is None or found.serial == len(history) or (period and found.serial % period == 0):
        return
    logger.warning(
        f"the best evaluation was that of epoch {found.serial} ({name} {found.metric:.4g}), which "
        f"was not saved: checkpoint_period is {period}; with 1 every epoch can be the best"
    )
