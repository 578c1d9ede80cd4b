"""RunRequest: what a run is asked to do."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jax.sharding import Mesh

from medjax.callbacks import (
    CallbackList,
    DefaultPrinterCallback,
    EarlyStopping,
    MetricsWriter,
    as_callback_list,
)
from medjax.callbacks.printer import tell_if_silent
from medjax.component import TrainableComponent
from medjax.config import Options, TrainerConfig
from medjax.metrics.computer import MetricsComputer
from medjax.schedules import Schedule, constant


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRequest:
    """Says what a run is asked to do, apart from the data.

    Attributes
    ----------
    component : TrainableComponent
        What is trained or evaluated.
    config : TrainerConfig
        How it is trained.
    options : Options
        What `config` has no field for.
    mesh : jax.sharding.Mesh
        The devices it runs on.
    callback : CallbackList
        What is told of the events.
    metrics_computer : MetricsComputer or None
        Computes the scores.
    schedule : Schedule
        Gives the learning rate.
    resume : "auto", path or None
        Which checkpoint to resume from; see `medjax.train`.
    """

    component: TrainableComponent
    config: TrainerConfig
    options: Options
    mesh: Mesh
    callback: CallbackList
    metrics_computer: MetricsComputer | None
    schedule: Schedule = dataclasses.field(default_factory=constant)
    resume: str | Path | None = None

    @property
    def scores_training(self) -> bool:
        """Whether the training batches are scored, which takes their outputs."""
        return self.metrics_computer is not None and self.config.do_metrics_in_training


def all_callbacks(callback: object, config: TrainerConfig, options: Options) -> CallbackList:
    """Collect the user's callbacks, or the printer, and those that options ask for."""
    chosen = as_callback_list(DefaultPrinterCallback() if callback is None else callback)
    tell_if_silent(chosen.callbacks)
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
