"""Trainer: medkit's class over medjax's loop."""

from __future__ import annotations

import contextlib
import datetime
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from jax.sharding import Mesh
from torch.utils.data import DataLoader

from medjax import sharding
from medjax.callbacks import as_callback_list
from medjax.checkpoint.restore import free_path
from medjax.loop.train import open_run, train_epochs
from medjax.preemption import ends_briefly
from medjax_torch.batches import close_workers, make_dataloader
from medjax_torch.callbacks import DefaultPrinterCallback
from medjax_torch.checkpoints import CONFIG_NAME as CONFIG_NAME
from medjax_torch.checkpoints import OPTIMIZER_NAME as OPTIMIZER_NAME
from medjax_torch.checkpoints import SCHEDULER_NAME as SCHEDULER_NAME
from medjax_torch.checkpoints import is_of_medkit, read_torch_files, write_plain
from medjax_torch.component import ConvertedComponent
from medjax_torch.contract import check_arguments, check_metrics, check_optimizer, check_result
from medjax_torch.cost import ConversionCost
from medjax_torch.device import CPU, on_host
from medjax_torch.evaluation import evaluate
from medjax_torch.optimizers import end_epoch
from medjax_torch.optimizers.schedules import build_schedule
from medjax_torch.options import Options
from medjax_torch.preparation import Preparation
from medjax_torch.run import TorchRun
from medjax_torch.start import start
from medjax_torch.trainable_component import TrainableComponent
from medjax_torch.trainer_config import TrainerConfig
from medjax_torch.utils import BatchData, MetricsComputer

logger = logging.getLogger("medjax")


def set_seed(seed: int = 0) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Trainer:
    """Trains a torch component in JAX; medkit's ``Trainer`` by name, signature and events.

    The component's forward and torch's own backward are recorded once for each kind of batch and
    run compiled by JAX, on its CPU, GPU or TPU. After training, at every save and when an
    exception ends it, the component's torch modules hold the trained weights.

    Parameters
    ----------
    component : TrainableComponent
        What to train. Modules that lie on a GPU of torch's, as with ``device=0``, lie on the CPU
        while they are trained, from where JAX brings them to its own device, and are moved back.
    config : TrainerConfig
        How to train it.
    train_data, eval_data : dataset
        What torch's DataLoader takes; items go through ``component.preprocess``.
    metrics_computer : MetricsComputer, optional
        Scores the evaluation and, with ``config.do_metrics_in_training``, the training.
    lr_scheduler_builder : callable, optional
        Optimizer to torch scheduler; or an optax schedule, which gives the rate of each update.
    callback : TrainerCallback or sequence of them, optional
        By default `DefaultPrinterCallback`.
    options : Options, optional
        What `config` has no field for.
    mesh : jax.sharding.Mesh, optional
        From `medjax.sharding.make_mesh`; by default data-parallel over all devices.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        The component's own. It holds the hyperparameters, which are in force at the next step
        after they were changed, and the moments of the last save.
    best_checkpoint, last_checkpoint : Path or None
        Folders of the checkpoints kept, once `train` has returned.

    Raises
    ------
    ValueError
        If an argument is not what is expected.
    """

    def __init__(
        self,
        component: TrainableComponent,
        config: TrainerConfig,
        train_data: Any,
        eval_data: Any,
        metrics_computer: MetricsComputer | None = None,
        lr_scheduler_builder: Callable[[torch.optim.Optimizer], Any] | None = None,
        callback: Any = None,
        *,
        options: Options | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        check_arguments(component, config, metrics_computer, lr_scheduler_builder, options)
        if config.seed is not None:
            set_seed(config.seed)
        self.config = config
        self.options = options or Options()
        self.mesh = mesh
        self.output_dir = Path(config.output_dir)
        self.output_dir.mkdir(parents=True, exist_ok=True)
        self.component = component
        self.batch_size = config.batch_size
        self.dataloader_drop_last = False
        self.dataloader_nb_workers = config.dataloader_nb_workers
        self.dataloader_pin_memory = False
        self.device = component.device
        self.train_dataloader = self.get_dataloader(train_data, shuffle=True)
        self.eval_dataloader = self.get_dataloader(eval_data, shuffle=False)
        self.nb_training_epochs = config.nb_training_epochs
        self._lr_scheduler_builder = lr_scheduler_builder
        self._configure_optimizer()
        self.metrics_computer = metrics_computer
        self.callback = DefaultPrinterCallback() if callback is None else callback
        self.best_checkpoint: Path | None = None
        self.last_checkpoint: Path | None = None
        self._run: TorchRun | None = None
        self._preparation: Preparation | None = None

    def _configure_optimizer(self) -> None:
        self.optimizer = self.component.configure_optimizer(self.config.learning_rate)
        check_optimizer(self.optimizer)
        self.lr_scheduler, self.schedule = build_schedule(
            self._lr_scheduler_builder, self.optimizer, self.options.lr_scheduler_interval
        )

    def get_dataloader(self, data: Any, shuffle: bool) -> DataLoader[Any]:
        """Return a torch DataLoader of the component's preprocessed and collated batches.

        Parameters
        ----------
        data : dataset
            Anything with ``__len__`` and ``__getitem__``, or an IterableDataset with a length.
        shuffle : bool
            Whether the order changes with the epoch.

        Raises
        ------
        ValueError
            If the dataset has no length or no items.
        """
        return make_dataloader(
            data,
            self.component,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.config.seed or 0,
            nb_workers=self.dataloader_nb_workers,
            drop_last=self.dataloader_drop_last,
            pin_memory=self.dataloader_pin_memory,
            order=self.options.order,
            length_window=self.options.length_window,
            padding=self.options.padding,
            cache_preprocessed=self.options.cache_preprocessed,
            worker_timeout=self.options.worker_timeout,
        )

    def training_epoch(self) -> dict[str, float]:
        """Train for the epoch that `train` is at and return its metrics.

        Raises
        ------
        RuntimeError
            If it is not called by `train`.
        """
        if self._run is None:
            raise RuntimeError("training_epoch was called outside of train(); call train()")
        return self._run.train()

    def evaluation_epoch(self, eval_dataloader: DataLoader[Any]) -> dict[str, float]:
        """Evaluate on the batches of a loader and return loss and scores.

        Outside of `train` the weights are those that the component holds.

        Parameters
        ----------
        eval_dataloader : torch.utils.data.DataLoader
            From `get_dataloader`, or any whose batches the component's forward takes.
        """
        with on_host(self.component, self.optimizer):
            if self._run is not None:
                return self._run.evaluate(eval_dataloader)
            return evaluate(self, eval_dataloader)

    def make_forward_pass(
        self, inputs: BatchData, eval_mode: bool
    ) -> tuple[BatchData, torch.Tensor]:
        """Return outputs and loss of the component for a batch.

        It is recorded when a batch of a new kind comes, not called at every step.

        Parameters
        ----------
        inputs : BatchData
            A collated batch.
        eval_mode : bool
            Whether this is evaluation.

        Raises
        ------
        ValueError
            If the component does not return outputs and a loss.
        """
        inputs = inputs.to_device(CPU)
        return check_result(self.component.forward(inputs, return_loss=True, eval_mode=eval_mode))

    def update_learning_rate(self, eval_metrics: dict[str, float]) -> None:
        """Step the scheduler after an epoch, if there is one and that is its interval.

        Parameters
        ----------
        eval_metrics : dict of str to float
            Metrics of the evaluation.

        Raises
        ------
        ValueError
            If ReduceLROnPlateau needs a metric that was not computed.
        """
        if self.lr_scheduler is not None and self.options.lr_scheduler_interval == "epoch":
            end_epoch(self.lr_scheduler, eval_metrics, self.config.metric_to_track_lr)

    @ends_briefly
    def train(self, resume: str | Path | None = None) -> list[dict[str, dict[str, float]]]:
        """Train, and return the metrics of every epoch.

        Parameters
        ----------
        resume : "auto" or path, optional
            "auto" goes on from the newest sound checkpoint in ``config.output_dir``, or starts
            afresh if there is none; a path goes on from that checkpoint. A checkpoint that medkit
            wrote gives weights, optimizer and scheduler, and training starts at epoch 1.

        Returns
        -------
        list of dict
            ``{"train": {...}, "eval": {...}}`` for each epoch.

        Raises
        ------
        ValueError
            If a metric's name is not among those computed.
        TraceError, VerificationError
            If the component cannot be trained in JAX as torch would train it.
        NonFiniteError
            If the loss or a gradient was not finite.
        OutOfMemoryError
            If a device had no memory left for a step; says what to lower.
        CheckpointError
            If a checkpoint cannot be saved or resumed from, the output folder has no room for the
            checkpoints of the run, or another run writes into it.
        """
        with on_host(self.component, self.optimizer):
            return self._train(resume)

    def _train(self, resume: str | Path | None) -> list[dict[str, dict[str, float]]]:
        if is_of_medkit(resume):
            assert resume is not None
            self.component.load(resume)
            self._configure_optimizer()
            read_torch_files(Path(resume), self.optimizer, self.lr_scheduler)
            resume = None
        if type(self).evaluation_epoch is Trainer.evaluation_epoch:
            check_metrics(self)
        with open_run(self.config, self.options) as (store, preemption):
            run = start(self, store, preemption, resume)
            with self._during(run):
                session = run.session
                _, progress = train_epochs(run.parts, run.phases, session.state, session.progress)
            self.best_checkpoint, self.last_checkpoint = store.best, store.last
        logger.info("Converting the component took: %s", self.conversion_cost)
        return progress.history

    @property
    def conversion_cost(self) -> ConversionCost:
        """How many graphs were traced and compiled so far, and how long that took."""
        return self.prepare().cost

    def prepare(self) -> Preparation:
        """Return the component converted, anew only if it holds other tensors than before."""
        if self._preparation is None or not self._preparation.converted.is_current():
            converted = ConvertedComponent(
                self.component,
                self.make_forward_pass,
                max_variants=self.options.max_variants,
                precision=self.options.precision,
                attention_implementation=self.options.attention_implementation,
                marks_rows=isinstance(self.optimizer, torch.optim.SparseAdam),
                may_skip=self.options.on_non_finite == "skip",
            )
            mesh = self.mesh if self.mesh is not None else sharding.make_mesh()
            self._preparation = Preparation(converted, self.options, mesh)
        return self._preparation

    @contextlib.contextmanager
    def _during(self, run: TorchRun) -> Any:
        self._run = run
        try:
            yield
        except BaseException as error:
            # Of several processes the others may not come to gather what is written back.
            if jax.process_count() == 1:
                try:
                    run.session.write_back()
                except Exception as another:
                    error.add_note(
                        "besides, the weights could not be written back to the component "
                        f"({type(another).__name__}: {another}); those of the last save are on disk"
                    )
            raise
        else:
            run.session.write_back()
        finally:
            self._run = None
            run.session.end()
            close_workers(self.train_dataloader)
            close_workers(self.eval_dataloader)

    def save(self, epoch: int) -> str:
        """Save a checkpoint and return its folder.

        What `train` saves holds everything a resumed run needs. Called at any other time, the
        checkpoint holds configuration, optimizer, scheduler and the component as they are.

        Parameters
        ----------
        epoch : int
            Epoch of the folder's name.

        Raises
        ------
        CheckpointError
            If it cannot be saved; earlier checkpoints are untouched.
        """
        run = self._run
        if run is not None and run.session.due_save is not None:
            return run.save(epoch, run.session.due_save)
        if run is not None:
            run.session.write_back()
        now = datetime.datetime.now(datetime.UTC)
        path = free_path(self.output_dir / f"checkpoint_{epoch:03d}_{now:%Y%m%dT%H%M%SZ}")
        as_callback_list(self.callback).on_save(checkpoint_dir=str(path))
        write_plain(path, self.config.to_dict(), self.optimizer, self.lr_scheduler, self.component)
        return str(path)
