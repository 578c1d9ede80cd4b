"""What the ready components share: an encoder with a classifier, read from a folder and saved."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from medjax.batch import BatchData
from medjax.component import ExpandedData, TrainableComponent, Variables
from medjax.components.folders import WINDOW_LENGTH, check_settings, plain_settings
from medjax.components.lora import check_merged
from medjax.components.losses import ClassificationLoss
from medjax.components.optimizers import Optimizer
from medjax.components.rows import padded
from medjax.config import Options
from medjax.metrics import Mean
from medjax.models import Task, Tokenizer, read_labels, read_params, write_checkpoint
from medjax.models.heads import Classifier
from medjax.step import make_predict_step

__all__ = ["EncoderComponent"]


class EncoderComponent(abc.ABC):
    """An encoder with a classifier, which starts from a folder and is saved to one.

    A subclass is a frozen dataclass with the attributes below, except `task`, among its fields.

    Attributes
    ----------
    task : Task
        What the weights are read and written for.
    model : Classifier
        The Flax model.
    tokenizer : Tokenizer
        Its tokenizer.
    max_length : int
        Tokens of a row, special tokens included.
    optimizer : callable
        Returns an optax transformation for a learning rate.
    loss : ClassificationLoss
        What training minimizes.
    folder : Path or None
        Checkpoint that the weights are read from; None for random weights.
    """

    task: ClassVar[Task]
    model: Classifier
    tokenizer: Tokenizer
    max_length: int
    optimizer: Optimizer
    loss: ClassificationLoss
    folder: Path | None

    @property
    @abc.abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""

    @property
    @abc.abstractmethod
    def _meaning(self) -> dict[str, Any]:
        """Fields of config.json that say what weights mean, besides those of the model.

        A run resumes none with others.
        """

    @property
    def _settings(self) -> dict[str, Any]:
        """Fields of config.json besides those of the model."""
        return self._meaning

    @abc.abstractmethod
    def expand(self, items: Any, /, *, training: bool = True) -> ExpandedData:
        """Return the rows of a dataset."""

    @abc.abstractmethod
    def preprocess(self, item: Any, /) -> dict[str, Any]:
        """Return the example of a row."""

    @abc.abstractmethod
    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example."""

    @abc.abstractmethod
    def forward(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Return ``logits`` and ``predictions`` of each row, and the loss."""

    @property
    def component(self) -> TrainableComponent:
        """The record of functions that `medjax.train` and `medjax.evaluate` take."""
        return TrainableComponent(
            init=self.init,
            preprocess=self.preprocess,
            collate=self.collate,
            forward=self.forward,
            configure_optimizer=self.optimizer,
            save=self.save,
            load=self.load,
            expand=self.expand,
            identity={"classes": list(self.classes), **plain_settings(self._meaning)},
            loss_settings=self.loss.settings(),
            reading={"max_length": self.max_length},
        )

    def init(self, key: jax.Array) -> Variables:
        """Return the pretrained weights; what they lack of the head is random.

        A classifier for other classes is left out, one for the same in another order is reordered.
        """
        if self.folder is None:
            tokens = np.ones((1, 3), np.int32)
            return dict(self.model.init(key, tokens, tokens, deterministic=True))
        params = read_params(self.folder, self.model.config, self.task)
        known = self._classes_in(self.folder)
        if sorted(known) != sorted(self.classes):
            params.pop("classifier", None)
        elif known != self.classes:
            order = [known.index(name) for name in self.classes]
            params["classifier"] = {
                name: values[..., order] for name, values in params["classifier"].items()
            }
        return {"params": {**self.model.init_head(key), **params}}

    def save(self, path: Path, variables: Variables) -> None:
        """Write a folder that `transformers` and `from_pretrained` can load."""
        check_merged(variables)
        original = self.folder if self.folder is not None and self.folder.is_dir() else None
        write_checkpoint(
            path,
            self.model.config,
            variables["params"],
            labels=self.classes,
            original_folder=original,
            task=self.task,
            more={**self._settings, WINDOW_LENGTH: self.max_length},
        )
        self.tokenizer.save(path)

    def load(self, path: Path) -> Variables:
        """Return the weights in a folder that `save` wrote.

        Raises
        ------
        ValueError
            If the classes there are not those of this component, it reads texts otherwise than in
            training (by kind of problem, pooling, tagged tokens, pairs, their context or marks), or
            the weights cannot be read.
        """
        known = self._classes_in(path)
        if known != self.classes:
            found = f"the classes {list(known)}" if known else "no classifier of the kind"
            msg = (
                f"{path} has {found}; expected {list(self.classes)}, in this order; load another "
                f"classifier with {type(self).__name__}.from_pretrained"
            )
            raise ValueError(msg)
        check_settings(path, self._settings, type(self).__name__)
        return {"params": read_params(path, self.model.config, self.task)}

    def _classes_in(self, folder: Path) -> tuple[str, ...]:
        """Return the names of a checkpoint's classes; () if it has no classifier for the task."""
        return read_labels(folder, self.task) or ()

    def _token_columns(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return ``input_ids`` and ``attention_mask``, int32, shape (rows, length)."""
        ids = [example["input_ids"] for example in examples]
        return BatchData(
            input_ids=padded(ids, self.tokenizer.pad_token_id),
            attention_mask=padded([[1] * len(row) for row in ids], 0),
        )

    def _apply(
        self, variables: Variables, ids: Any, mask: Any, key: jax.Array, eval_mode: bool
    ) -> jax.Array:
        """Return the model's logits of rows of tokens."""
        check_merged(variables)
        logits: jax.Array = self.model.apply(  # type: ignore[assignment]
            {"params": variables["params"]},
            ids,
            mask,
            deterministic=eval_mode,
            rngs={"dropout": key},
        )
        return logits

    def _predict_step(
        self, variables: Variables, options: Options | None
    ) -> Callable[[BatchData], BatchData]:
        """Return a compiled function from batches to outputs, with the weights on the device."""
        step = make_predict_step(self.forward, options or Options())
        return functools.partial(step, jax.device_put(variables))
