"""The training loop: the only file that knows the order of events.

Epoch for epoch: train, evaluate, update the learning rate, write the history, tell the callbacks,
save.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optax
from jax.sharding import Mesh

from medjax import sharding
from medjax.callbacks import as_callback_list
from medjax.checkpoint import CheckpointStore
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.data import Dataset
from medjax.loop.epochs import evaluation_epoch, training_epoch, update_learning_rate
from medjax.loop.run import Run, all_callbacks, start
from medjax.metrics.computer import MetricsComputer
from medjax.metrics.mean import Mean
from medjax.preemption import Preemption
from medjax.progress import Progress, progress_record
from medjax.schedules import Schedule, as_schedule
from medjax.scores import Scores
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
    nb_compilations : int
        How often the training and evaluation step were compiled.
    stop_reason : str or None
        Why a callback ended training, if one did.
    """

    state: TrainState
    history: list[dict[str, dict[str, float]]]
    best_checkpoint: Path | None
    last_checkpoint: Path | None
    nb_compilations: int
    stop_reason: str | None


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
    CheckpointError
        If a checkpoint cannot be saved or resumed from.
    SystemExit
        With 128 + the signal's number after SIGTERM or SIGUSR1, once the state is saved.
    KeyboardInterrupt
        After Ctrl-C, once the state is saved; a second Ctrl-C does not wait for that.
    """
    options = options or Options()
    mesh = mesh if mesh is not None else sharding.make_mesh()
    callbacks = all_callbacks(callback, config, options)
    with (
        Preemption() as preemption,
        CheckpointStore(
            config.output_dir,
            secrets.token_hex(8),
            minimize=config.minimize_checkpoint_metric,
            keep_all=options.keep_all_checkpoints,
        ) as store,
        contextlib.ExitStack() as at_end,
    ):
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
        try:
            state, progress = _train_epochs(run, state, progress)
            store.wait()
        except BaseException as error:
            callbacks.on_exception(error)
            raise
        if preemption.signum is not None:
            preemption.stop()
        return TrainResult(
            state,
            progress.history,
            store.best,
            store.last,
            run.train_step.nb_compilations + run.eval_step.nb_compilations,
            callbacks.stop_reason,
        )


def _train_epochs(run: Run, state: TrainState, progress: Progress) -> tuple[TrainState, Progress]:
    """Run the epochs that are left; all that changes goes in and comes out as values."""
    run.callback.load_state_dict(progress.callbacks)
    run.callback.stop_reason = progress.stop_reason
    run.callback.on_train_begin(config=run.config)
    while progress.epoch <= run.plan.nb_epochs and not _is_over(run, progress):
        epoch = progress.epoch
        began = time.monotonic()
        run.callback.on_epoch_begin(epoch=epoch)
        state, train_metrics, progress = _train_one(run, state, progress)
        metrics = {"train": train_metrics}
        if run.eval_loader is not None:
            metrics["eval"] = _evaluate(run, state, progress)
        eval_metrics = metrics.get("eval", {})
        rate = update_learning_rate(
            run.schedule, progress.schedule, epoch, eval_metrics, run.config.metric_to_track_lr
        )
        state = _begin_next(run, state, rate["learning_rate"])
        progress = progress._replace(
            schedule=rate,
            history=[*progress.history, metrics],
            epoch=epoch + 1,
            batch=0,
            columns={},
        )
        run.callback.on_epoch_end(
            metrics=metrics, epoch=epoch, epoch_duration=time.monotonic() - began
        )
        is_last = epoch == run.plan.nb_epochs or run.callback.stop_reason is not None
        period = run.config.checkpoint_period
        if is_last or (period != 0 and epoch % period == 0):
            metric = eval_metrics.get(run.config.checkpoint_metric)
            _save(run, state, progress, epoch=epoch, metric=metric)
    run.store.wait()  # callbacks find the last checkpoint complete
    run.callback.on_train_end()
    return state, progress


def _is_over(run: Run, progress: Progress) -> bool:
    """Return whether a callback ended training; an epoch that it cut short is still finished."""
    return run.callback.stop_reason is not None and progress.batch == 0


def _train_one(
    run: Run, state: TrainState, progress: Progress
) -> tuple[TrainState, dict[str, float], Progress]:
    """Train for the rest of the epoch of `progress`, saving on the way when asked to."""
    is_last = progress.epoch == run.plan.nb_epochs
    stop = run.plan.last_stop if is_last else len(run.train_loader)
    if progress.stop_reason is not None:
        stop = progress.batch  # it was stopped there, then interrupted
    in_training = run.config.do_metrics_in_training
    scores = run.scores(progress.columns) if in_training else None

    def after_batch(state: TrainState, number: int) -> None:
        preempted = run.preemption.requested(_clock(run, progress.epoch, number))
        interval = run.options.save_interval_steps
        due = interval is not None and number % interval == 0 and number < stop
        if not (preempted or due) or int(state.stopped_at) >= 0:
            return  # a state that has met its NaN is not saved; the epoch is about to raise
        here = _at(progress, number, scores)
        _save(run, state, here, epoch=progress.epoch, metric=None, block=preempted)
        if preempted:
            run.preemption.stop()

    state, metrics = training_epoch(
        *(state, run.train_loader, run.train_step),
        epoch=progress.epoch,
        start=progress.batch,
        stop=stop,
        callback=run.callback,
        scores=scores,
        after_batch=after_batch,
    )
    if run.options.loss_arithmetic == "medkit":
        metrics["loss"] /= run.config.gradient_accumulation_steps
    return state, metrics, _at(progress, stop, scores)


def _evaluate(run: Run, state: TrainState, progress: Progress) -> dict[str, float]:
    """Evaluate, and check the names of metrics before anything is saved under them."""
    assert run.eval_loader is not None
    done = 0

    def after_batch() -> None:
        nonlocal done
        done += 1
        if run.preemption.requested(_clock(run, progress.epoch, progress.batch + done)):
            _save(run, state, progress, epoch=progress.epoch, metric=None, block=True)
            run.preemption.stop()

    metrics = evaluation_epoch(
        *(state.variables, run.eval_loader, run.eval_step),
        callback=run.callback,
        scores=run.scores(),
        after_batch=after_batch,
    )
    if run.config.checkpoint_metric not in metrics:
        msg = (
            f"Checkpoint metric {run.config.checkpoint_metric!r} not found; the evaluation gave "
            f"{sorted(metrics)}"
        )
        raise ValueError(msg)
    return metrics


def _at(progress: Progress, batch: int, scores: Scores | None) -> Progress:
    return progress._replace(batch=batch, columns={} if scores is None else scores.columns())


def _clock(run: Run, epoch: int, batch: int) -> int:
    """Return a number that grows with every batch and is the same in all processes."""
    eval_batches = 0 if run.eval_loader is None else len(run.eval_loader)
    return epoch * (len(run.train_loader) + eval_batches) + batch


def _begin_next(run: Run, state: TrainState, learning_rate: float) -> TrainState:
    fresh = (np.float32(learning_rate), Mean.empty())
    rate, losses = sharding.put(fresh, sharding.replicated(run.mesh))
    return state.replace(learning_rate=rate, losses=losses)


def _save(
    run: Run,
    state: TrainState,
    progress: Progress,
    *,
    epoch: int,
    metric: float | None,
    block: bool = False,
) -> None:
    progress = progress._replace(
        callbacks=run.callback.state_dict(), stop_reason=run.callback.stop_reason
    )
    save(
        *(run.store, run.component, run.config, state, progress),
        epoch=epoch,
        metric=metric,
        callback=run.callback,
        block=block,
    )


def save(
    store: CheckpointStore,
    component: TrainableComponent,
    config: TrainerConfig,
    state: TrainState,
    progress: Progress,
    *,
    epoch: int,
    metric: float | None,
    callback: Any = None,
    block: bool = False,
) -> str:
    """Save a checkpoint.

    Parameters
    ----------
    store : CheckpointStore
        Where to.
    component : TrainableComponent
        Writes its own files.
    config : TrainerConfig
        Written as ``trainer_config.yml``.
    state : TrainState
        The arrays; copied before this returns.
    progress : Progress
        Everything else.
    epoch : int
        Epoch of the name.
    metric : float or None
        Value of the checkpoint metric; None for a checkpoint within an epoch.
    callback : TrainerCallback or sequence of them, optional
        Gets on_save, before anything is written.
    block : bool
        Whether to wait until the checkpoint is complete.

    Returns
    -------
    str
        Folder of the checkpoint, complete after ``store.wait()``.
    """
    path = store.new_path(epoch)
    as_callback_list(callback).on_save(checkpoint_dir=str(path))
    variables = sharding.to_host(state.variables)
    store.save(
        path,
        state,
        progress_record(progress),
        metric=metric,
        config=config.to_dict(),
        write_files=lambda folder: component.save(folder, variables),
        block=block,
    )
    return str(path)
