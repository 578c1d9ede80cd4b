"""Protocols that say what the parts of a Trainer need from it."""

from __future__ import annotations

from typing import Any, Protocol

import optax
import torch
from jax.sharding import Mesh
from torch.utils.data import DataLoader

from medjax.loop.epochs import Metrics
from medjax.schedules import Schedule
from medjax_torch.conversion import BatchAdapter
from medjax_torch.options import Options
from medjax_torch.trainable_component import TrainableComponent
from medjax_torch.trainer_config import TrainerConfig
from medjax_torch.utils import BatchData


class TrainedParts(Protocol):
    """The properties from which a training step is assembled; see `medjax_torch.Trainer`."""

    @property
    def config(self) -> TrainerConfig:
        """The training configuration."""
        ...

    @property
    def options(self) -> Options:
        """The options for which `config` has no field."""
        ...

    @property
    def component(self) -> TrainableComponent:
        """The component that is trained."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer | optax.GradientTransformation:
        """The component's optimizer."""
        ...

    @property
    def lr_scheduler(self) -> Any:
        """The user's torch scheduler, or None."""
        ...

    @property
    def schedule(self) -> Schedule:
        """The schedule of the learning rate if no torch optimizer holds the rate."""
        ...

    @property
    def metrics_computer(self) -> Any:
        """The user's metrics computer for batches of tensors, or None."""
        ...


class TrainerProtocol(TrainedParts, Protocol):
    """The Trainer's data, callbacks and methods that a subclass may override."""

    @property
    def callback(self) -> object:
        """The user's callback or callbacks."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The devices to train on."""
        ...

    @property
    def train_dataloader(self) -> DataLoader[Any]:
        """The training data."""
        ...

    @property
    def eval_dataloader(self) -> DataLoader[Any]:
        """The evaluation data."""
        ...

    def prepare(self) -> BatchAdapter:
        """Convert the component if it has not been converted yet."""
        ...

    def make_forward_pass(
        self, inputs: BatchData, eval_mode: bool
    ) -> tuple[BatchData, torch.Tensor]:
        """Return outputs and loss of the component for a batch."""
        ...

    def training_epoch(self) -> Metrics:
        """Train for the current epoch."""
        ...

    def evaluation_epoch(self, eval_dataloader: DataLoader[Any]) -> Metrics:
        """Evaluate on the batches of a loader."""
        ...

    def update_learning_rate(self, eval_metrics: Metrics) -> None:
        """Step the scheduler after an epoch."""
        ...

    def save(self, epoch: int) -> str:
        """Save a checkpoint and return its folder."""
        ...
