"""The protocol of components, importable under medkit's module name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from medjax_torch.utils import BatchData


@runtime_checkable
class TrainableComponent(Protocol):
    """The interface of a component that a `Trainer` can train; inheriting from it is optional.

    Examples
    --------
    >>> class Classifier:
    ...     device = torch.device("cpu")
    ...
    ...     def __init__(self):
    ...         self.model = torch.nn.Linear(4, 2)
    ...
    ...     def configure_optimizer(self, lr):
    ...         return torch.optim.AdamW(self.model.parameters(), lr=lr)
    ...
    ...     def preprocess(self, data_item):
    ...         return data_item
    ...
    ...     def collate(self, batch):
    ...         return BatchData({k: torch.stack([row[k] for row in batch]) for k in batch[0]})
    ...
    ...     def forward(self, input_batch, return_loss, eval_mode):
    ...         self.model.train(not eval_mode)
    ...         logits = self.model(input_batch["x"])
    ...         loss = torch.nn.functional.cross_entropy(logits, input_batch["labels"])
    ...         return BatchData(logits=logits), loss
    ...
    ...     def save(self, path):
    ...         torch.save(self.model.state_dict(), f"{path}/model.pt")
    ...
    ...     def load(self, path):
    ...         self.model.load_state_dict(torch.load(f"{path}/model.pt"))
    >>> isinstance(Classifier(), TrainableComponent)
    True
    """

    @property
    def device(self) -> torch.device:
        """The device of the component's tensors."""
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
        """Convert an item to everything that `collate` needs, including the labels.

        It is called with the item alone, as in medkit. If it also has a parameter ``rng`` without
        a default, it gets a `numpy.random.Generator` in training, and None in evaluation.

        Parameters
        ----------
        data_item : object
            An item of the training or evaluation data.
        """
        ...

    def collate(self, batch: list[dict[str, Any]]) -> BatchData:
        """Join preprocessed items to a batch.

        Parameters
        ----------
        batch : list of dict
            Results of `preprocess`.
        """
        ...

    def forward(
        self, input_batch: BatchData, return_loss: bool, eval_mode: bool
    ) -> tuple[BatchData, torch.Tensor | None]:
        """Compute the outputs and the loss of a batch.

        It is traced once for each kind of batch rather than called at every step, so it must
        compute with torch operations only. It has to switch its modules to training or evaluation
        mode itself.

        Parameters
        ----------
        input_batch : BatchData
            A collated batch, on the CPU.
        return_loss : bool
            Whether the loss is needed; if not, it may be None.
        eval_mode : bool
            Whether the component is evaluated rather than trained.

        Returns
        -------
        outputs : BatchData
            The outputs, tensors of any shape; metrics computers receive them.
        loss : torch.Tensor or None
            The loss, a floating-point tensor with one element.
        """
        ...

    def save(self, path: str | Path) -> None:
        """Write the component's files into the folder `path`."""
        ...

    def load(self, path: str | Path) -> None:
        """Load the component's weights from the folder `path`."""
        ...
