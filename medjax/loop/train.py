"""The training loop: the only file that knows the order of events.

Epoch for epoch: train, evaluate, update the learning rate, write the history, tell the callbacks,
save.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from medjax import distributed, sharding
from medjax.callbacks import CallbackList
from medjax.checkpoint import CheckpointEntry, CheckpointStore
from medjax.checkpoint.progress import Progress
from medjax.checkpoint.retention import best
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset
from medjax.garbage import rare_collections
from medjax.loop.contract import check_arguments, warn_of_versions
from medjax.loop.directions import warn_of_directions
from medjax.loop.epochs import Metrics
from medjax.loop.evaluation_data import evaluated_before, forget_other_scores
from medjax.loop.monitor import warn_of_skipped
from medjax.loop.phases import Phases, RunPhases
from medjax.loop.plan import nb_updates_of
from medjax.loop.request import RunRequest, all_callbacks
from medjax.loop.run import Run
from medjax.loop.setup import set_up
from medjax.metrics.computer import MetricsComputer
from medjax.runtime import Compilation, keep_memory, telling, waiting_for
from medjax.runtime.compilation_cache import cached
from medjax.runtime.preemption import Preemption, ends_briefly
from medjax.schedules import Schedule, ScheduleState, as_schedule
from medjax.state import TrainState

logger = logging.getLogger("medjax")


class TrainResult(NamedTuple):
    """Collects what `train` returns.

    Attributes
    ----------
    state : TrainState
        The final state; ``state.variables`` holds the trained weights, those of the last epoch.
    history : list of dict
        ``{"train": {...}, "eval": {...}}`` for each epoch.
    best_checkpoint, last_checkpoint : Path or None
        Folders of the checkpoints that were kept.
    compilations : list of Compilation
        What the steps of training and evaluation were compiled for, and how long that took.
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
        """How often the steps of training and evaluation were compiled."""
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
    callback: object = None,
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
        Learning rate; an optax schedule gives the rate of each update. Constant by default.
    callback : TrainerCallback or sequence of them, optional
        By default `DefaultPrinterCallback`. As in medkit, others take its place; to see progress as
        well, list it among them. ``[]`` shows nothing.
    options : Options, optional
        What `config` has no field for.
    mesh : jax.sharding.Mesh, optional
        From `sharding.make_mesh`; by default data-parallel over all devices.
    resume : "auto" or path, optional
        "auto" resumes from the newest sound checkpoint in ``config.output_dir``, or starts afresh
        if there is none; a path resumes from that checkpoint; None starts afresh.

    Returns
    -------
    TrainResult
        State, history and the checkpoints that were kept.

    Raises
    ------
    ValueError
        If an argument, the data or the name of a metric is not what is expected.
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
    request = RunRequest(
        component=component,
        config=config,
        options=options,
        mesh=mesh if mesh is not None else sharding.make_mesh(),
        schedule=as_schedule(schedule),
        callback=all_callbacks(callback, config, options),
        metrics_computer=metrics_computer,
        resume=resume,
    )
    with (
        open_run(config, options) as (store, preemption),
        contextlib.ExitStack() as at_end,
        telling(request.callback.on_wait),
    ):
        with waiting_for("preparing model and data"), rare_collections():
            run, state, progress = set_up(request, train_data, eval_data, store, preemption, at_end)
        owners = state.owners
        phases = RunPhases(run)
        state, progress = train_epochs(run, phases, state, progress)
        return TrainResult(
            state=state.owning(*owners),
            history=progress.history,
            best_checkpoint=store.best,
            last_checkpoint=store.last,
            compilations=phases.compilations,
            stop_reason=request.callback.stop_reason,
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


def train_epochs(
    run: Run, phases: Phases, state: TrainState, progress: Progress
) -> tuple[TrainState, Progress]:
    """Run the epochs that are left; all that changes goes in and comes out as values.

    Parameters
    ----------
    run : Run
        The run.
    phases : Phases
        What is done in an epoch.
    state, progress
        Where the run begins.

    Raises
    ------
    CheckpointError
        At once, if the output folder has no room for the checkpoints.
    BaseException
        Whatever ends training early, once the callbacks have been told.
    """
    run.check_space(state, progress)
    if progress.skipped is None:
        progress = progress._replace(skipped=int(state.skipped))
    if run.eval_loader is not None:
        warn_of_directions(run.request)
    try:
        progress = _begin(run, progress)
        state, progress = _epochs(run, phases, state, progress)
        run.store.wait()
    except BaseException as error:
        try:
            run.request.callback.on_exception(error)
        except Exception as another:
            error.add_note(f"besides, on_exception failed ({type(another).__name__}: {another})")
        raise
    return state, progress


def _begin(run: Run, progress: Progress) -> Progress:
    """Give the callbacks what they remember, and tell them that training begins or resumes."""
    callback = run.request.callback
    callback.load_state_dict(progress.callbacks)
    forget_other_scores(callback, progress)
    callback.resume_stop(progress.stop_reason, progress.stopped_by)
    progress = run.with_callbacks(progress)
    callback.on_train_begin(config=run.request.config)
    if run.store.resumed is not None:
        callback.on_resume(
            checkpoint_dir=str(run.store.resumed),
            epoch=progress.epoch,
            step_idx=progress.batch,
            nb_batches=len(run.train_loader),
            nb_epochs=run.plan.nb_epochs,
        )
        if callback.stop_reason is None and jax.process_index() == 0:
            _tell_of_left_out(run, progress)
    return progress


def _epochs(
    run: Run, phases: Phases, state: TrainState, progress: Progress
) -> tuple[TrainState, Progress]:
    config, callback = run.request.config, run.request.callback
    while progress.epoch <= run.plan.nb_epochs and not _is_over(callback, progress):
        epoch = progress.epoch
        began = time.monotonic()
        callback.on_epoch_begin(epoch=epoch)
        state, train_metrics, progress = phases.train(state, progress)
        metrics = {"train": train_metrics}
        if run.eval_loader is not None:
            metrics["eval"] = phases.evaluate(state, progress)
            _check_metric(config.checkpoint_metric, metrics["eval"])
        eval_metrics = metrics.get("eval", {})
        state, schedule_state = phases.next_epoch(state, progress, eval_metrics)
        before, nb_skipped = progress, int(state.skipped)
        progress = _after_epoch(run, progress, metrics, schedule_state, nb_skipped)
        callback.on_epoch_end(metrics=metrics, epoch=epoch, epoch_duration=time.monotonic() - began)
        if jax.process_index() == 0:
            warn_of_skipped(nb_skipped - (before.skipped or 0), before.batch, epoch)
        _agree_on_stop(callback)
        is_last = epoch == run.plan.nb_epochs or callback.stop_reason is not None
        period = config.checkpoint_period
        if is_last or (period != 0 and epoch % period == 0):
            metric = eval_metrics.get(config.checkpoint_metric)
            value = None if metric is None else float(metric)  # tensors and fractions, too
            phases.save(state, progress, epoch=epoch, metric=value)
    run.store.wait()  # callbacks find the last checkpoint complete
    if jax.process_index() == 0:
        _warn_if_best_is_elsewhere(run.store, config, progress)
    callback.on_train_end()
    return state, progress


def _after_epoch(
    run: Run,
    progress: Progress,
    metrics: dict[str, Metrics],
    schedule_state: ScheduleState,
    nb_skipped: int,
) -> Progress:
    """Return the progress at the beginning of the next epoch."""
    before, made = progress.updates, nb_updates_of(progress.batch, run.request.config)
    return progress._replace(
        schedule=schedule_state,
        history=[*progress.history, metrics],
        epoch=progress.epoch + 1,
        batch=0,
        columns={},
        updates=None if before is None else before + made,
        left_out=len(run.train_loader) - progress.batch,
        skipped=nb_skipped,
    )


def _tell_of_left_out(run: Run, progress: Progress) -> None:
    """Say that batches of the last epoch are not trained on, although the run goes on."""
    max_steps = run.request.options.max_steps
    wants_more = max_steps is None or run.plan.nb_updates < max_steps
    goes_on = progress.epoch <= run.plan.nb_epochs
    if not progress.left_out or progress.batch or not (goes_on or wants_more):
        return
    more = "" if goes_on else "; nothing is left to do: set nb_training_epochs higher to train on"
    logger.warning(
        f"Resuming: epoch {progress.epoch - 1} had ended {progress.left_out} batches early; they "
        f"are not trained on in this run{more}"
    )


def _is_over(callback: CallbackList, progress: Progress) -> bool:
    """Tell whether a callback ended training; an epoch that it cut short is still finished."""
    _agree_on_stop(callback)
    return callback.stop_reason is not None and progress.batch == 0


def _agree_on_stop(callback: CallbackList) -> None:
    """Make a stop that a callback of one process asked for one of all processes."""
    reasons = distributed.exchange(callback.stop_reason or "")
    callback.stop_reason = next(filter(None, reasons), None)


def _check_metric(name: str, metrics: Metrics) -> None:
    """Check the checkpoint metric before anything is saved under it."""
    if name not in metrics:
        msg = f"Checkpoint metric {name!r} not found; the evaluation gave {sorted(metrics)}"
        raise ValueError(msg)
    try:
        float(metrics[name])
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # torch raises the last
        msg = f"Checkpoint metric {name!r} is {metrics[name]!r:.60}; expected a number"
        raise ValueError(msg) from None


def _warn_if_best_is_elsewhere(
    store: CheckpointStore, config: TrainerConfig, progress: Progress
) -> None:
    """Warn if the best evaluation is not that of the best checkpoint of this run."""
    name, period = config.checkpoint_metric, config.checkpoint_period
    history, nb_others = progress.history, evaluated_before(progress)
    entries = [
        CheckpointEntry(epoch, Path(), "", float(row["eval"][name]))
        for epoch, row in enumerate(history, 1)
        if epoch > nb_others and name in row.get("eval", {})
    ]
    top = best(entries, minimize=config.minimize_checkpoint_metric)
    if top is None:
        return
    if math.isnan(top.metric or 0.0):
        logger.warning(
            f"the checkpoint metric {name!r} was not a number (nan) in any evaluation, so no "
            "checkpoint is better than another"
        )
        return
    if len(entries) > 1 and len({entry.metric for entry in entries}) == 1:
        kept = best(store.entries(), minimize=config.minimize_checkpoint_metric)
        logger.warning(
            f"the checkpoint metric {name!r} was {top.metric:.4g} in all {len(entries)} "
            "evaluations, so it tells no epoch from another, and the best checkpoint"
            + (f", {kept.path.name}," if kept else "")
            + " is only the first that was saved; train on, or choose another checkpoint_metric"
        )
        return
    if top.serial == len(history) or (period and top.serial % period == 0):
        own = best(store.entries(), minimize=config.minimize_checkpoint_metric)
        if own is None or own.metric == top.metric:
            return
        if best([own, top], minimize=config.minimize_checkpoint_metric) is top:
            logger.warning(
                f"the best evaluation was that of epoch {top.serial} ({name} {top.metric:.4g}), "
                f"before this run branched off {store.resumed}; the best checkpoint of this run, "
                f"{own.path.name}, has {own.metric:.4g}"
            )
        return
    logger.warning(
        f"the best evaluation was that of epoch {top.serial} ({name} {top.metric:.4g}), which was "
        f"not saved: checkpoint_period is {period}; with 1 every epoch can be the best"
    )
