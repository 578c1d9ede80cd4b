"""Token classification: named entity recognition with an encoder of the BERT family."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.batch import ROW_MASK, BatchData
from medjax.component import ExpandedData, TrainableComponent, Variables
from medjax.components.checkpoint_tags import choose_tags, known_tags
from medjax.components.documents import (
    DocumentReader,
    DocumentWindow,
    expand_documents,
    find_all_unreachable,
    window_example,
)
from medjax.components.prediction import predict_entities
from medjax.components.unreachable import Unreachable
from medjax.config import Options
from medjax.metrics import GOLD, IGNORED, Mean
from medjax.models import (
    TokenClassifier,
    Tokenizer,
    load_tokenizer,
    prove_folder,
    read_config,
    read_params,
    resolve_model,
    write_checkpoint,
)
from medjax.models.attention import AttentionImplementation, check_implementation
from medjax.step import make_predict_step
from medjax.tagging import labels_of
from medjax.text import Document, Entity

Optimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


def adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Return AdamW with the defaults of ``torch.optim.AdamW``, which medkit trains with."""
    return optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2)


@dataclasses.dataclass(frozen=True)
class TokenClassification:
    """A tagger of text: finds entities and their place; made by `from_pretrained`.

    It takes `medjax.text.Document` items. Words are those of `medjax.text.find_words`, the same for
    every tokenizer; each gets one tag, on the first of its tokens. A document that is longer than
    the model takes is read in windows that overlap by a quarter, in training, evaluation and
    `predict` alike; each word is tagged in the window where it has the most context, and scores are
    of whole documents.

    Attributes
    ----------
    model : TokenClassifier
        The Flax model.
    tokenizer : Tokenizer
        Its tokenizer.
    tags : tuple of str
        Tag of each class.
    tagging_scheme : {"iob2", "bilou", "iobes", "io"}
        Scheme of `tags`.
    tag_subtokens : bool
        Whether each token gets a tag of its own, so that entities may start and end inside words.
    max_length : int
        Tokens of a window, special tokens included.
    optimizer : callable
        Learning rate to optax transformation.
    folder : Path or None
        Checkpoint the weights come from; None starts from random ones.
    """

    model: TokenClassifier
    tokenizer: Tokenizer
    tags: tuple[str, ...]
    tagging_scheme: str = "iob2"
    tag_subtokens: bool = False
    max_length: int = 512
    optimizer: Optimizer = adamw
    folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        labels: Sequence[str] | None = None,
        *,
        tagging_scheme: str = "iob2",
        tag_subtokens: bool = False,
        max_length: int | None = None,
        optimizer: Optimizer = adamw,
        gradient_checkpointing: bool = False,
        attention_implementation: AttentionImplementation = "xla",
    ) -> Self:
        """Return a tagger on a pretrained encoder or a fine-tuned checkpoint.

        Parameters
        ----------
        name_or_folder : str or Path
            A Hugging Face folder, a checkpoint of medjax, or a name; see
            `medjax.models.resolve_model`.
        labels : sequence of str, optional
            Kinds of entities. None takes those of the checkpoint, which must then be a tagger.
        tagging_scheme : {"iob2", "bilou", "iobes", "io"}
            How entities become tags; read off the checkpoint when `labels` is None.
        tag_subtokens : bool
            Whether each token gets a tag of its own, so that entities may start and end inside
            words. By default each word gets one.
        max_length : int, optional
            Tokens of a window; by default what the model takes, at most 512.
        optimizer : callable
            Learning rate to optax transformation; medkit's AdamW by default. With
            `Options.weight_decay` give one without decay of its own, such as `optax.adam`.
        gradient_checkpointing : bool
            Whether the backward pass computes the inside of each layer anew instead of keeping it:
            less memory, more time, the same numbers.
        attention_implementation : {"xla", "cudnn"}
            "cudnn" takes NVIDIA's fused attention where it applies, see `medjax.models.Encoder`:
            with ``precision="bfloat16"`` in evaluation, and in training if the checkpoint's
            configuration has ``attention_probs_dropout_prob`` 0.

        Raises
        ------
        ValueError
            If the model, the labels, the length or the name of the attention is not usable, or
            weights, configuration and tokenizer of the model do not fit together.
        """
        check_implementation(attention_implementation)
        folder = resolve_model(name_or_folder)
        config = read_config(folder)
        tokenizer = load_tokenizer(folder)
        prove_folder(folder, config, tokenizer)
        tags, tagging_scheme = choose_tags(folder, labels, tagging_scheme)
        if max_length is not None and not 2 < max_length <= config.max_length:
            msg = f"max_length is {max_length}; expected 3 to {config.max_length} for this model"
            raise ValueError(msg)
        return cls(
            TokenClassifier(config, len(tags), gradient_checkpointing, attention_implementation),
            tokenizer,
            tags,
            tagging_scheme,
            tag_subtokens,
            max_length or min(config.max_length, 512),
            optimizer,
            folder,
        )

    @property
    def component(self) -> TrainableComponent:
        """What `medjax.train` takes."""
        return TrainableComponent(
            init=self.init,
            preprocess=self.preprocess,
            collate=self.collate,
            forward=self.forward,
            configure_optimizer=self.optimizer,
            save=self.save,
            load=self.load,
            expand=self.expand,
        )

    @property
    def labels(self) -> list[str]:
        """Kinds of entities, in the order of their tags."""
        return labels_of(self.tags)

    def init(self, key: jax.Array) -> Variables:
        """Return the pretrained weights, with a random classifier where they have none."""
        tokens = jnp.ones((1, 3), jnp.int32)
        if self.folder is None:
            return dict(self.model.init(key, tokens, tokens, deterministic=True))
        params = read_params(self.folder, self.model.config)
        if known_tags(self.folder) != self.tags:
            size = (self.model.config.hidden_size, len(self.tags))
            scale = self.model.config.initializer_range
            kernel = nn.initializers.normal(scale)(key, size)
            params["classifier"] = {"kernel": kernel, "bias": np.zeros(len(self.tags), np.float32)}
        return {"params": params}

    @property
    def _reader(self) -> DocumentReader:
        return DocumentReader(self.tokenizer, self.max_length, self.tag_subtokens)

    def expand(self, documents: Any, *, training: bool = True) -> ExpandedData:
        """Return the windows of all documents; `medjax.train` and `medjax.evaluate` do so.

        Parameters
        ----------
        documents : Dataset
            Documents; each is read now, to count its windows, and again for each batch.
        training : bool
            Whether they are trained on. In evaluation an entity with a label that the tagger does
            not know counts as missed, and a note says so.

        Returns
        -------
        ExpandedData
            `DocumentWindow` items, and notes on annotated entities that no tags can stand for.

        Raises
        ------
        ValueError
            If an entity is empty or lies outside its text; in training also if it has an unknown
            label, or one for which the classes lack a tag.
        """
        return expand_documents(
            documents, self._reader, self.tags, self.tagging_scheme, training=training
        )

    def unreachable(self, documents: Any) -> list[Unreachable]:
        """Return the annotated entities that even a perfect tagger of this kind cannot find.

        They end inside a word or a token, share a word with another entity, or consist of
        characters that the tokenizer drops. Scores count them as missed.

        Parameters
        ----------
        documents : Dataset
            Documents.
        """
        return find_all_unreachable(documents, self._reader, self.labels, self.tagging_scheme)

    def preprocess(self, item: Document | DocumentWindow) -> dict[str, Any]:
        """Return token ids, labels and annotation of a window of a document.

        Parameters
        ----------
        item : DocumentWindow or Document
            An item of what `expand` returns; or a document (anything with a `text` and its
            `entities`) that fits in one window.

        Returns
        -------
        dict
            ``input_ids`` and ``labels``, lists of int with one entry for each token; the label of
            a token that does not count is -100. ``gold``, a `medjax.metrics.Gold`.

        Raises
        ------
        ValueError
            If a document is too long for one window, or no longer what it was when it was expanded.
        """
        return window_example(item, self._reader, self.tags, self.tagging_scheme)

    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example.

        Returns
        -------
        BatchData
            ``input_ids``, ``attention_mask`` and ``labels``, int32, shape (rows, length), and
            ``gold``, a list that stays on the host.
        """
        ids = [example["input_ids"] for example in examples]
        return BatchData(
            input_ids=_padded(ids, self.tokenizer.pad_token_id),
            attention_mask=_padded([[1] * len(row) for row in ids], 0),
            labels=_padded([example["labels"] for example in examples], IGNORED),
            gold=[example[GOLD] for example in examples],
        )

    def forward(
        self,
        variables: Variables,
        input_batch: BatchData,
        key: jax.Array,
        *,
        return_loss: bool,
        eval_mode: bool,
    ) -> tuple[BatchData, Mean | None, Variables]:
        """Return ``logits`` and ``predictions`` of each token, and the cross-entropy.

        The loss weighs every labelled token alike.
        """
        logits: Any = self.model.apply(
            {"params": variables["params"]},
            input_batch["input_ids"],
            input_batch["attention_mask"],
            deterministic=eval_mode,
            rngs={"dropout": key},
        )
        outputs = BatchData(logits=logits, predictions=logits.argmax(-1).astype(jnp.int32))
        if not return_loss:
            return outputs, None, {}
        labels = input_batch["labels"]
        counts = (labels != IGNORED) & (input_batch[ROW_MASK][:, None] > 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return outputs, Mean.of(losses, counts), {}

    def save(self, path: Path, variables: Variables) -> None:
        """Write a folder that `transformers`, medkit and `from_pretrained` load."""
        original = self.folder if self.folder is not None and self.folder.is_dir() else None
        write_checkpoint(
            path,
            self.model.config,
            variables["params"],
            labels=self.tags,
            original_folder=original,
        )
        self.tokenizer.save(path)

    def load(self, path: Path) -> Variables:
        """Return the weights of a folder that `save` wrote.

        Raises
        ------
        ValueError
            If its classes are not those of this tagger, or the weights cannot be read.
        """
        tags = known_tags(path)
        if tags != self.tags:
            msg = (
                f"{path} has the classes {list(tags)}; expected {list(self.tags)}, in this order: "
                "use TokenClassification.from_pretrained for another tagger"
            )
            raise ValueError(msg)
        return {"params": read_params(path, self.model.config)}

    def predict(
        self,
        variables: Variables,
        texts: Sequence[str],
        *,
        batch_size: int = 16,
        rule: str = "conlleval",
        options: Options | None = None,
    ) -> list[tuple[Entity, ...]]:
        """Find the entities of new texts.

        Parameters
        ----------
        variables : dict
            Trained weights: ``result.state.variables``, or from `load`.
        texts : sequence of str
            Texts of any length.
        batch_size : int
            Windows that go through the model together.
        rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
            How tags become entities, see `medjax.tagging`; `SpanMetrics` has the same default.
        options : Options, optional
            For `precision`; give those of an evaluation to find what it scored.

        Returns
        -------
        list of tuple of Entity
            For each text its entities by character offsets, with the mean probability of their
            words' tags as score.
        """
        return predict_entities(
            make_predict_step(self.forward, options or Options()),
            variables,
            texts,
            reader=self._reader,
            collate=self.collate,
            tags=self.tags,
            batch_size=batch_size,
            rule=rule,
        )


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded
