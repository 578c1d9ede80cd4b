"""The drop-in's Trainer: medkit's interface on top of medjax's training loop."""

from __future__ import annotations

import contextlib
import dataclasses
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
from medjax.garbage import rare_collections
from medjax.loop.train import open_run, train_epochs
from medjax.runtime import telling, waiting_for
from medjax.runtime.preemption import ends_briefly
from medjax_torch.batches import close_workers, make_dataloader
from medjax_torch.callbacks import DefaultPrinterCallback
from medjax_torch.checkpoints import CONFIG_NAME as CONFIG_NAME
from medjax_torch.checkpoints import OPTIMIZER_NAME as OPTIMIZER_NAME
from medjax_torch.checkpoints import SCHEDULER_NAME as SCHEDULER_NAME
from medjax_torch.checkpoints import is_of_medkit, read_torch_files, write_plain
from medjax_torch.component_state.device import CPU, on_host
from medjax_torch.conversion import BatchAdapter, ConversionCost, ConvertedComponent
from medjax_torch.optimizers import end_epoch
from medjax_torch.optimizers.schedule_builder import build_schedule
from medjax_torch.options import Options
from medjax_torch.session import TorchRun, evaluate, fit_of, lengths_of, set_up
from medjax_torch.session.contract import (
    check_arguments,
    check_metrics,
    check_optimizer,
    check_result,
    warn_of_same_draws,
)
from medjax_torch.trainable_component import TrainableComponent
from medjax_torch.trainer_config import TrainerConfig
from medjax_torch.utils import BatchData, MetricsComputer

logger = logging.getLogger("medjax")


def set_seed(seed: int = 0) -> None:
    """Seed the global random generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Trainer:
    """Trains a torch component with JAX; has the interface of medkit's ``Trainer``.

    The component's forward and torch's backward pass are traced once for each kind of batch and
    then compiled and run by JAX on a CPU, GPU or TPU. The component's torch modules hold the
    trained weights after training, at every save, and when training ends with an exception.

    Parameters
    ----------
    component : TrainableComponent
        The component to train. If its modules are on a torch GPU, as with ``device=0``, they are
        moved to the CPU during training and back afterwards; JAX copies the weights to its own
        device.
    config : TrainerConfig
        Training configuration.
    train_data, eval_data : dataset
        Datasets that torch's DataLoader accepts; items are passed to ``component.preprocess``.
    metrics_computer : MetricsComputer, optional
        Computes the scores of the evaluation and, with ``config.do_metrics_in_training``, of the
        training.
    lr_scheduler_builder : callable, optional
        A function that takes the optimizer and returns a torch scheduler, or an optax schedule,
        which gives the learning rate of each update.
    callback : TrainerCallback or sequence of them, optional
        Callbacks; by default, `DefaultPrinterCallback`. As in medkit, others take its place; to see
        progress as well, list it among them.
    options : Options, optional
        Options that `config` has no field for.
    mesh : jax.sharding.Mesh, optional
        From `medjax.sharding.make_mesh`; by default, data-parallel over all devices.

    Attributes
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer that the component configured. Changes to its hyperparameters take effect at
        the next step. Its state is updated at every save.
    best_checkpoint, last_checkpoint : Path or None
        Folders of the best and the last checkpoint, set when `train` returns.

    Raises
    ------
    ValueError
        If an argument is not of the expected kind.

    Examples
    --------
    >>> config = TrainerConfig("out", learning_rate=1e-3, nb_training_epochs=3)  # doctest: +SKIP
    >>> trainer = Trainer(component, config, train_data, eval_data)  # doctest: +SKIP
    >>> history = trainer.train()  # doctest: +SKIP
    >>> history[-1]["eval"]["loss"]  # doctest: +SKIP
    0.31
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
        self.mesh = mesh if mesh is not None else sharding.make_mesh()
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
        self.nb_training_epochs = self._nb_epochs_configured = config.nb_training_epochs
        self._lr_scheduler_builder = lr_scheduler_builder
        self._configure_optimizer()
        self.metrics_computer = metrics_computer
        self.callback = DefaultPrinterCallback() if callback is None else callback
        self.best_checkpoint: Path | None = None
        self.last_checkpoint: Path | None = None
        self._run: TorchRun | None = None
        self._seeds: set[int] = set()
        self._preparation: BatchAdapter | None = None

    def _configure_optimizer(self) -> None:
        self.optimizer = self.component.configure_optimizer(self.config.learning_rate)
        check_optimizer(self.optimizer)
        self.lr_scheduler, self.schedule = build_schedule(
            self._lr_scheduler_builder, self.optimizer, self.options.lr_scheduler_interval
        )

    def get_dataloader(self, data: Any, shuffle: bool) -> DataLoader[Any]:
        """Return a torch DataLoader of batches preprocessed and collated by the component.

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
            options=self.options,
            fit=fit_of(self.component, self.config, self.options, self.mesh, train=shuffle),
        )

    def training_epoch(self) -> dict[str, float]:
        """Train for the current epoch and return its metrics; called by `train`.

        Raises
        ------
        RuntimeError
            If it is called outside of `train`.
        """
        if self._run is None:
            raise RuntimeError("training_epoch was called outside of train(); call train()")
        return self._run.train()

    def evaluation_epoch(self, eval_dataloader: DataLoader[Any]) -> dict[str, float]:
        """Evaluate on the batches of a loader and return the loss and the scores.

        Outside of `train`, the component's own weights are evaluated.

        Parameters
        ----------
        eval_dataloader : torch.utils.data.DataLoader
            From `get_dataloader`, or any loader whose batches the component's forward accepts.
        """
        with on_host(self.component, self.optimizer):
            if self._run is not None:
                return self._run.evaluate(eval_dataloader)
            return evaluate(self, eval_dataloader)

    def make_forward_pass(
        self, inputs: BatchData, eval_mode: bool
    ) -> tuple[BatchData, torch.Tensor]:
        """Return the outputs and the loss of the component for a batch.

        It is traced once for each kind of batch, not called at every step.

        Parameters
        ----------
        inputs : BatchData
            A collated batch.
        eval_mode : bool
            Whether the component is evaluated rather than trained.

        Raises
        ------
        ValueError
            If the component does not return outputs and a loss.
        """
        inputs = inputs.to_device(CPU)
        return check_result(self.component.forward(inputs, return_loss=True, eval_mode=eval_mode))

    def update_learning_rate(self, eval_metrics: dict[str, float]) -> None:
        """Step the scheduler after an epoch, if there is one and its interval is "epoch".

        Parameters
        ----------
        eval_metrics : dict of str to float
            Metrics of the evaluation.

        Raises
        ------
        ValueError
            If ReduceLROnPlateau needs a metric that is not in `eval_metrics`.
        """
        if self.lr_scheduler is not None and self.options.lr_scheduler_interval == "epoch":
            end_epoch(self.lr_scheduler, eval_metrics, self.config.metric_to_track_lr)

    @ends_briefly
    def train(self, resume: str | Path | None = None) -> list[dict[str, dict[str, float]]]:
        """Train, and return the metrics of every epoch.

        Parameters
        ----------
        resume : "auto" or path, optional
            A checkpoint to resume from. "auto" resumes from the newest intact checkpoint in
            ``config.output_dir``, or starts from scratch if there is none. From a checkpoint
            written by medkit, weights, optimizer and scheduler are loaded and training starts at
            epoch 1.

        Returns
        -------
        list of dict
            ``{"train": {...}, "eval": {...}}`` for each epoch.

        Raises
        ------
        ValueError
            If a metric that the configuration names is not computed.
        TraceError, VerificationError
            If JAX cannot train the component exactly as torch would.
        NonFiniteError
            If the loss or a gradient is not finite.
        OutOfMemoryError
            If a device has not enough memory for a step; the message says what to reduce.
        CheckpointError
            If a checkpoint cannot be saved or loaded, the output folder has not enough space for
            the run's checkpoints, or another run is using it.
        """
        with on_host(self.component, self.optimizer):
            return self._train(resume)

    def _train(self, resume: str | Path | None) -> list[dict[str, dict[str, float]]]:
        if self.nb_training_epochs != self._nb_epochs_configured:
            # medkit counts by the attribute; here the checkpoints have to say the same.
            self.config = dataclasses.replace(
                self.config, nb_training_epochs=self.nb_training_epochs
            )
            self._nb_epochs_configured = self.nb_training_epochs
        if is_of_medkit(resume):
            assert resume is not None
            self.component.load(resume)
            self._configure_optimizer()
            read_torch_files(Path(resume), self.optimizer, self.lr_scheduler)
            resume = None
        if type(self).evaluation_epoch is Trainer.evaluation_epoch:
            check_metrics(self)
        with (
            open_run(self.config, self.options) as (store, preemption),
            telling(as_callback_list(self.callback).on_wait),
        ):
            with waiting_for("preparing model and data"), rare_collections():
                run = set_up(self, store, preemption, resume)
                seed = run.session.progress.seed
                if store.resumed is None:
                    warn_of_same_draws(seed, self._seeds)
                self._seeds.add(seed)
            with self._during(run):
                session = run.session
                _, progress = train_epochs(run.parts, run.phases, session.state, session.progress)
            self.best_checkpoint, self.last_checkpoint = store.best, store.last
        logger.info("Converting the component took: %s", self.conversion_cost)
        return progress.history

    @property
    def conversion_cost(self) -> ConversionCost:
        """The number of graphs traced and compiled so far, and the time spent on it."""
        return self.prepare().cost

    def prepare(self) -> BatchAdapter:
        """Return the converted component; convert it again only if its tensors were replaced."""
        lengths = lengths_of(self)
        made = self._preparation
        is_medkits = self.options.loss_arithmetic == "medkit"
        divisor = self.config.gradient_accumulation_steps if is_medkits else 1
        is_same = made is not None and (made.lengths, made.converted.divisor) == (lengths, divisor)
        if made is None or not is_same or not made.converted.is_current():
            converted = ConvertedComponent(
                self.component,
                self.make_forward_pass,
                max_variants=self.options.max_variants,
                precision=self.options.precision,
                attention_implementation=self.options.attention_implementation,
                marks_rows=isinstance(self.optimizer, torch.optim.SparseAdam),
                may_skip=self.options.on_non_finite == "skip",
                divisor=divisor,
            )
            made = self._preparation = BatchAdapter(converted, self.options, self.mesh, lengths)
        return made

    @contextlib.contextmanager
    def _during(self, run: TorchRun) -> Any:
        self._run = run
        try:
            yield
        except BaseException as error:
            # With several processes, the others may not reach the gathering of the weights.
            if jax.process_count() == 1:
                try:
                    run.session.write_back()
                except Exception as another:
                    error.add_note(
                        "also, the weights could not be written back to the component "
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

        During `train`'s own saves, the checkpoint contains everything needed to resume the run.
        Called at any other time, it contains the configuration and the current states of the
        optimizer, the scheduler and the component.

        Parameters
        ----------
        epoch : int
            Epoch in the folder's name.

        Raises
        ------
        CheckpointError
            If the checkpoint cannot be saved; earlier checkpoints are left intact.
        """
        run = self._run
        if run is not None and run.session.due_save is not None:
            return run.save(epoch, run.session.due_save)
        if run is not None:
            run.session.write_back()
        time = datetime.datetime.now(datetime.UTC)
        path = free_path(self.output_dir / f"checkpoint_{epoch:03d}_{time:%Y%m%dT%H%M%SZ}")
        as_callback_list(self.callback).on_save(checkpoint_dir=str(path))
        write_plain(path, self.config.to_dict(), self.optimizer, self.lr_scheduler, self.component)
        return str(path)
