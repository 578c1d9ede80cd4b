"""TrainableComponent, in medkit's module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from medjax_torch.utils import BatchData


@runtime_checkable
class TrainableComponent(Protocol):
    """What a `Trainer` trains. Nothing has to inherit from it."""

    @property
    def device(self) -> torch.device:
        """Where the component's tensors lie."""
        ...

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return the optimizer of the component's parameters.

        It may also be an ``optax.GradientTransformation`` over ``{name: array}``.

        Parameters
        ----------
        lr : float
            Learning rate.
        """
        ...

    def preprocess(self, data_item: Any) -> dict[str, Any]:
        """Return everything `collate` needs of an item, the labels included."""
        ...

    def collate(self, batch: list[dict[str, Any]]) -> BatchData:
        """Join preprocessed items to a batch."""
        ...

    def forward(
        self, input_batch: BatchData, return_loss: bool, eval_mode: bool
    ) -> tuple[BatchData, torch.Tensor | None]:
        """Return outputs and loss of a batch.

        It is recorded for each kind of batch and not called at every step, so it must compute
        with torch alone. It sets its modules to training or evaluation mode itself.

        Parameters
        ----------
        input_batch : BatchData
            A collated batch.
        return_loss : bool
            Whether the loss is wanted; None may stand in its place otherwise.
        eval_mode : bool
            Whether this is evaluation.
        """
        ...

    def save(self, path: str | Path) -> None:
        """Write the component's files into the folder `path`."""
        ...

    def load(self, path: str | Path) -> None:
        """Read the component's weights from the folder `path`."""
        ...
