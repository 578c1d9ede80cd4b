"""Text classification: whole texts into one of several classes, or into any number of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np

from medjax.batch import ROW_MASK, BatchData
from medjax.component import ExpandedData, TrainableComponent, Variables
from medjax.components.encoder_component import EncoderComponent
from medjax.components.folders import open_folder
from medjax.components.losses import CROSS_ENTROPY, ClassificationLoss
from medjax.components.optimizers import Optimizer, adamw
from medjax.components.text_data import (
    NumberedText,
    NumberedTexts,
    check_texts,
    label_of,
    target_of,
    windowed,
)
from medjax.components.text_labels import (
    POOLING,
    THRESHOLDS,
    choose_classes,
    least_probabilities,
    read_problem,
    read_thresholds,
)
from medjax.components.text_prediction import TextPrediction, predict_classes
from medjax.config import Options
from medjax.metrics import DOCUMENT, Mean
from medjax.models import TEXT_CLASSIFICATION, TextClassifier, Tokenizer
from medjax.models.attention import AttentionImplementation, check_implementation
from medjax.text import LabelledText

__all__ = ["TextClassification", "TextPrediction"]

ProblemType = Literal["single_label_classification", "multi_label_classification"]
Pooling = Literal["mean", "max"]

TARGETS = "targets"
"""Name of the batch column with a 0 or 1 for each class, if texts may have several."""

_OLD_THRESHOLDS = (
    "the classifier has thresholds that were chosen for the weights it starts from; predict with "
    "trained ones by classifier.with_thresholds(medjax.choose_thresholds(...)), or "
    "with_thresholds(None) for 0.5"
)


@dataclasses.dataclass(frozen=True)
class TextClassification(EncoderComponent):
    """A classifier of texts; usually made by `from_pretrained`.

    Its items are `medjax.text.LabelledText` objects. A text that is too long for the model is read
    in windows that overlap by a quarter, and its logits are the mean, or the maximum, of those of
    its windows, in training, evaluation and prediction. A text is one row of a batch, however many
    windows it has, so it counts once in the loss and in all scores.

    Attributes
    ----------
    model : TextClassifier
        The Flax model.
    tokenizer : Tokenizer
        Its tokenizer.
    labels : tuple of str
        Names of the classes, in the order of the logits.
    problem_type : {"single_label_classification", "multi_label_classification"}
        Whether each text has exactly one class or any number of them, named as in transformers.
    pooling : {"mean", "max"}
        How the logits of the windows of a text become those of the text.
    max_length : int
        Tokens of a window, special tokens included.
    optimizer : callable
        Returns an optax transformation for a learning rate.
    loss : ClassificationLoss
        Cross-entropy by default.
    thresholds : mapping of str to float, optional
        Least probability of each class where texts may have several; by default 0.5. They are
        saved with the weights.
    folder : Path or None
        Checkpoint that the weights are read from; None for random weights.
    """

    task = TEXT_CLASSIFICATION

    model: TextClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    problem_type: ProblemType = "single_label_classification"
    pooling: Pooling = "mean"
    max_length: int = 512
    optimizer: Optimizer = adamw
    loss: ClassificationLoss = CROSS_ENTROPY
    thresholds: Mapping[str, float] | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check that the loss and the thresholds fit the classes."""
        self.loss.check(self.labels, multi_label=self.is_multi_label)
        least_probabilities(self.thresholds, self.labels, multi_label=self.is_multi_label)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        labels: Sequence[str] | None = None,
        *,
        problem_type: ProblemType | None = None,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        optimizer: Optimizer = adamw,
        loss: ClassificationLoss = CROSS_ENTROPY,
        gradient_checkpointing: bool = False,
        attention_implementation: AttentionImplementation = "xla",
    ) -> Self:
        """Return a classifier that starts from a pretrained encoder or a fine-tuned checkpoint.

        Parameters
        ----------
        name_or_folder : str or Path
            A Hugging Face folder, a medjax checkpoint, or a model's name; see
            `medjax.models.resolve_model`.
        labels : sequence of str, optional
            Names of the classes, in the order of the logits; the head of a checkpoint that has them
            in another order is reordered. By default those of the checkpoint, which must be a
            classifier of texts.
        problem_type : str, optional
            ``"multi_label_classification"`` if texts may have any number of classes. By default
            that of the checkpoint, or ``"single_label_classification"``.
        pooling : {"mean", "max"}, optional
            How windows are joined. By default that of the checkpoint if medjax wrote it, or "mean".
        max_length : int, optional
            Tokens of a window. By default those of the checkpoint, or the most the model takes, up
            to 512.
        optimizer : callable
            Returns an optax transformation for a learning rate; medkit's AdamW by default.
        loss : ClassificationLoss
            Class weights, label smoothing, focal loss; cross-entropy by default.
        gradient_checkpointing, attention_implementation
            See `TokenClassification.from_pretrained`.

        Raises
        ------
        ValueError
            If the model, the labels or another argument cannot be used, or the weights,
            configuration and tokenizer of the model do not belong together.
        """
        check_implementation(attention_implementation)
        opened = open_folder(name_or_folder, cls.task, max_length)
        classes = choose_classes(opened.folder, labels)
        chosen, joined = read_problem(opened.folder, problem_type, pooling, classes)
        return cls(
            model=TextClassifier(
                opened.config, len(classes), gradient_checkpointing, attention_implementation
            ),
            tokenizer=opened.tokenizer,
            labels=classes,
            problem_type=chosen,  # type: ignore[arg-type]
            pooling=joined,  # type: ignore[arg-type]
            max_length=opened.max_length,
            optimizer=optimizer,
            loss=loss,
            thresholds=read_thresholds(opened.folder, chosen, classes),
            folder=opened.folder,
        )

    @property
    def component(self) -> TrainableComponent:
        """The record of functions that `medjax.train` and `medjax.evaluate` take."""
        # Thresholds belong to the weights that they were chosen for, which training changes.
        untuned = dataclasses.replace(self, thresholds=None)
        return super().component._replace(save=untuned.save)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits: `labels`."""
        return tuple(self.labels)

    @property
    def is_multi_label(self) -> bool:
        """Whether texts may have any number of classes."""
        return self.problem_type == "multi_label_classification"

    def with_thresholds(self, thresholds: Mapping[str, float] | None) -> Self:
        """Return the classifier with thresholds, which `save` writes and `predict` follows.

        The checkpoints of training do not have them, since they are chosen for trained weights.

        Parameters
        ----------
        thresholds : mapping of str to float or None
            Least probability of each class, from `medjax.metrics.choose_thresholds`; None for 0.5,
            after weights with thresholds have been trained further.

        Raises
        ------
        ValueError
            If they are not those of the classes, or a text has exactly one class.
        """
        least = None if thresholds is None else dict(thresholds)
        return dataclasses.replace(self, thresholds=least)

    def expand(self, texts: Any, *, training: bool = True) -> ExpandedData:
        """Check all texts and labels; `medjax.train` and `medjax.evaluate` call it.

        Parameters
        ----------
        texts : Dataset
            `LabelledText` items.
        training : bool
            True if the texts are for training; then a note says so if this classifier has
            thresholds, which are not for the weights that are trained.

        Raises
        ------
        ValueError
            If an item has no text, an unknown label or, with one class for each text, not exactly
            one label.
        """
        check_texts(texts, self.labels, multi_label=self.is_multi_label)
        notes = (_OLD_THRESHOLDS,) if training and self.thresholds is not None else ()
        return ExpandedData(NumberedTexts(texts), range(len(texts)), notes)

    def preprocess(self, item: LabelledText | NumberedText) -> dict[str, Any]:
        """Return the token ids of the windows of a text, one after the other, and its labels.

        Parameters
        ----------
        item : NumberedText or LabelledText
            An item of `expand`, or a text.

        Returns
        -------
        dict
            ``input_ids``, a list of int, whose windows have `max_length` tokens each, except the
            last; ``label``, an int, or ``targets``, a list with a 0 or 1 for each class; and
            ``document``, the position of the text in its dataset, or None.
        """
        document, text = item if isinstance(item, NumberedText) else (None, item)
        (encoding,) = self.tokenizer.encode([text.text])
        example = {"input_ids": windowed(encoding, self.max_length), DOCUMENT: document}
        if self.is_multi_label:
            return {**example, TARGETS: target_of(text, self.labels)}
        return {**example, "label": label_of(text, self.labels)}

    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example.

        Returns
        -------
        BatchData
            ``input_ids`` and ``attention_mask``, int32, shape (rows, length), and ``labels``,
            int32, shape (rows,), or ``targets``, float32, shape (rows, classes); ``document``, a
            list that stays on the host.
        """
        batch = self._token_columns(examples)
        batch[DOCUMENT] = [example[DOCUMENT] for example in examples]
        if self.is_multi_label:
            batch[TARGETS] = np.array([example[TARGETS] for example in examples], np.float32)
        else:
            batch["labels"] = np.array([example["label"] for example in examples], np.int32)
        return batch

    def forward(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Return ``logits`` and ``predictions`` of each text, and the loss.

        Without class weights it is the mean over texts; with any number of classes, over texts and
        classes.
        """
        logits = self._logits(variables, input_batch, key, eval_mode)
        if self.is_multi_label:
            predictions = (logits > 0).astype(jnp.int32)
        else:
            predictions = logits.argmax(-1).astype(jnp.int32)
        outputs = BatchData(logits=logits, predictions=predictions)
        if not return_loss:
            return outputs, None, {}
        rows = input_batch[ROW_MASK]
        if self.is_multi_label:
            loss = self.loss.of_targets(logits, input_batch[TARGETS], rows, self.labels)
        else:
            loss = self.loss.of_labels(logits, input_batch["labels"], rows, self.labels)
        return outputs, loss, {}

    def _logits(
        self, variables: Variables, batch: Mapping[str, Any], key: jax.Array, eval_mode: bool
    ) -> jax.Array:
        """Return the logits of each text, pooled over its windows, shape (rows, classes)."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        rows, length = ids.shape
        size = min(length, self.max_length)
        nb_windows = -(-length // size)
        fill = ((0, 0), (0, nb_windows * size - length))
        windows = jnp.pad(ids, fill, constant_values=self.tokenizer.pad_token_id)
        mask = jnp.pad(mask, fill).reshape(rows * nb_windows, size)
        windows = windows.reshape(rows * nb_windows, size)
        logits = self._apply(variables, windows, mask, key, eval_mode)
        if nb_windows == 1:
            return logits
        logits = logits.reshape(rows, nb_windows, -1)
        real = mask.reshape(rows, nb_windows, size).any(-1, keepdims=True)
        real = real.at[:, 0].set(True)  # also that of a text without any token
        if self.pooling == "max":
            return jnp.where(real, logits, -jnp.inf).max(1)
        return jnp.where(real, logits, 0.0).sum(1) / jnp.maximum(real.sum(1), 1)

    @property
    def _meaning(self) -> dict[str, Any]:
        return {"problem_type": self.problem_type, POOLING: self.pooling}

    @property
    def _settings(self) -> dict[str, Any]:
        thresholds = None if self.thresholds is None else dict(self.thresholds)
        return {**self._meaning, THRESHOLDS: thresholds}

    def predictor(
        self,
        variables: Variables,
        *,
        batch_size: int = 16,
        threshold: float | Mapping[str, float] | None = None,
        options: Options | None = None,
    ) -> Callable[[Sequence[str]], list[TextPrediction]]:
        """Return a function that classifies texts, for many calls: it keeps its compiled programs.

        Parameters
        ----------
        variables : dict
            Trained weights, from ``result.state.variables`` or `load`.
        batch_size : int
            Number of windows that are passed to the model at once.
        threshold : float or mapping of str to float, optional
            Least probability of a class, or of each class by name, where texts may have several;
            by default `thresholds`, or 0.5.
        options : Options, optional
            Only `precision` is used.

        Returns
        -------
        callable
            It takes texts of any length and returns a list with a `TextPrediction` for each.

        Raises
        ------
        ValueError
            If a text has exactly one class, and a threshold is given.
        """
        wanted = self.thresholds if threshold is None else threshold
        return functools.partial(
            predict_classes,
            self._predict_step(variables, options),
            tokenizer=self.tokenizer,
            collate=self.collate,
            unlabelled={DOCUMENT: None, "label": 0, TARGETS: [0] * len(self.labels)},
            labels=self.labels,
            least=least_probabilities(wanted, self.labels, multi_label=self.is_multi_label),
            pooling=self.pooling,
            max_length=self.max_length,
            batch_size=batch_size,
        )

    def predict(
        self,
        variables: Variables,
        texts: Sequence[str],
        *,
        batch_size: int = 16,
        threshold: float | Mapping[str, float] | None = None,
        options: Options | None = None,
    ) -> list[TextPrediction]:
        """Return the classes of new texts; see `predictor`."""
        classify = self.predictor(
            variables, batch_size=batch_size, threshold=threshold, options=options
        )
        return classify(texts)
