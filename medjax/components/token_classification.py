"""Token classification: named entity recognition with an encoder of the BERT family."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp

from medjax.batch import ROW_MASK, BatchData
from medjax.component import ExpandedData, Variables
from medjax.components.checkpoint_tags import choose_tags, known_tags
from medjax.components.documents import (
    DocumentReader,
    DocumentWindow,
    expand_documents,
    find_all_unreachable,
    window_example,
)
from medjax.components.encoder_component import EncoderComponent
from medjax.components.folders import open_folder
from medjax.components.losses import CROSS_ENTROPY, ClassificationLoss
from medjax.components.optimizers import Optimizer, adamw
from medjax.components.prediction import predict_entities
from medjax.components.rows import padded
from medjax.components.unreachable import Unreachable
from medjax.config import Options
from medjax.metrics import GOLD, IGNORED, Mean
from medjax.models import TOKEN_CLASSIFICATION, TokenClassifier, Tokenizer
from medjax.models.attention import AttentionImplementation, check_implementation
from medjax.text import Document, Entity
from medjax.text.tagging import labels_of, tag_layers

__all__ = ["TokenClassification"]

_SUBTOKENS = "tag_subtokens"
"""Field of config.json that medjax adds."""


@dataclasses.dataclass(frozen=True)
class TokenClassification(EncoderComponent):
    """A tagger that finds entities in text; usually made by `from_pretrained`.

    Its items are `medjax.text.Document` objects. Words are those of `medjax.text.find_words`,
    regardless of the tokenizer, and each word is tagged on its first token. A document that is too
    long for the model is read in windows that overlap by a quarter, in training, evaluation and
    prediction. Each word is tagged in the window in which it has the most context, and documents
    are scored as a whole.

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
        Returns an optax transformation for a learning rate.
    loss : ClassificationLoss
        Cross-entropy by default; its classes are the tags.
    folder : Path or None
        Checkpoint that the weights are read from; None for random weights.

    Examples
    --------
    >>> import tokenizers
    >>> from medjax.models import BertConfig
    >>> vocabulary = {"[PAD]": 0, "[UNK]": 1, "no": 2, "fever": 3}
    >>> backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    >>> backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    >>> tokenizer = Tokenizer(backend, pad_token_id=0, unknown_token_id=1, files={})
    >>> config = BertConfig(vocab_size=4, hidden_size=8, num_hidden_layers=1,
    ...     num_attention_heads=2, intermediate_size=16)
    >>> tagger = TokenClassification(
    ...     TokenClassifier(config, num_labels=3), tokenizer, ("O", "B-Sign", "I-Sign"))
    >>> example = tagger.preprocess(Document("no fever", (Entity("Sign", 3, 8),)))
    >>> example["input_ids"], example["labels"]
    ([2, 3], [0, 1])
    """

    task = TOKEN_CLASSIFICATION

    model: TokenClassifier
    tokenizer: Tokenizer
    tags: tuple[str, ...]
    tagging_scheme: str = "iob2"
    tag_subtokens: bool = False
    max_length: int = 512
    optimizer: Optimizer = adamw
    loss: ClassificationLoss = CROSS_ENTROPY
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check that the loss fits the tags."""
        self.loss.check(self.tags, multi_label=False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        labels: Sequence[str] | None = None,
        *,
        tagging_scheme: str = "iob2",
        tag_subtokens: bool | None = None,
        overlapping: bool = False,
        max_length: int | None = None,
        optimizer: Optimizer = adamw,
        loss: ClassificationLoss = CROSS_ENTROPY,
        gradient_checkpointing: bool = False,
        attention_implementation: AttentionImplementation = "xla",
    ) -> Self:
        """Return a tagger that starts from a pretrained encoder or a fine-tuned checkpoint.

        Parameters
        ----------
        name_or_folder : str or Path
            A Hugging Face folder, a medjax checkpoint, or a model's name; see
            `medjax.models.resolve_model`.
        labels : sequence of str, optional
            Kinds of entities. By default those of the checkpoint, which must be a tagger.
        tagging_scheme : {"iob2", "bilou", "iobes", "io"}
            How entities are written as tags. If `labels` is None, it is that of the checkpoint.
        tag_subtokens : bool, optional
            Whether each token gets a tag of its own, so that entities may start and end inside
            words. By default as in the checkpoint; if medjax did not write it, each word gets one.
        overlapping : bool
            Whether entities of different labels may overlap: each label gets a sequence of tags of
            its own, on the same encoder. Read the documents with ``overlapping=True``, too. Of
            entities with the same label that overlap, the longest is learned; the others count as
            missed. If `labels` is None, it is that of the checkpoint.
        max_length : int, optional
            Tokens of a window. By default those of the checkpoint, or the most the model takes, up
            to 512.
        optimizer : callable
            Returns an optax transformation for a learning rate; medkit's AdamW by default. If you
            set `Options.weight_decay`, pass one without weight decay, such as `optax.adam`.
        loss : ClassificationLoss
            Weights of tags, label smoothing, focal loss; cross-entropy by default.
        gradient_checkpointing : bool
            Whether the backward pass recomputes the activations inside each layer instead of
            keeping them. This takes less memory and more time, and gives the same numbers.
        attention_implementation : {"xla", "cudnn"}
            "cudnn" uses NVIDIA's fused attention where it applies: with ``precision="bfloat16"``,
            in evaluation, and in training if the checkpoint's configuration drops no attention
            probabilities; see `medjax.models.make_encoder`.

        Raises
        ------
        ValueError
            If the model, the labels, the length or the attention implementation cannot be used, or
            the weights, configuration and tokenizer of the model do not belong together.
        """
        check_implementation(attention_implementation)
        opened = open_folder(name_or_folder, cls.task, max_length)
        tags, tagging_scheme = choose_tags(
            opened.folder, labels, tagging_scheme, overlapping=overlapping
        )
        stored = opened.content.get(_SUBTOKENS) is True
        return cls(
            model=TokenClassifier(
                opened.config, len(tags), gradient_checkpointing, attention_implementation
            ),
            tokenizer=opened.tokenizer,
            tags=tags,
            tagging_scheme=tagging_scheme,
            tag_subtokens=tag_subtokens or (tag_subtokens is None and stored),
            max_length=opened.max_length,
            optimizer=optimizer,
            loss=loss,
            folder=opened.folder,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits: `tags`."""
        return tuple(self.tags)

    @property
    def labels(self) -> list[str]:
        """Kinds of entities, in the order of their tags."""
        return [label for tags in self.layers for label in labels_of(tags)]

    @property
    def layers(self) -> tuple[tuple[str, ...], ...]:
        """Tags of each sequence: one for all entities or, if these overlap, one for each label."""
        return tag_layers(self.tags)

    @property
    def _reader(self) -> DocumentReader:
        return DocumentReader(self.tokenizer, self.max_length, self.tag_subtokens)

    def expand(self, documents: Any, *, training: bool = True) -> ExpandedData:
        """Return the windows of all documents; `medjax.train` and `medjax.evaluate` call it.

        Parameters
        ----------
        documents : Dataset
            Documents. Each is tokenized here, to count its windows, and again for each batch.
        training : bool
            True if the documents are for training. In an evaluation, an entity with a label that
            the tagger does not know counts as missed, and a note says so.

        Returns
        -------
        ExpandedData
            `DocumentWindow` items, and notes on annotated entities that no tags can represent.

        Raises
        ------
        ValueError
            If an entity is empty or outside its text; in training, also if its label is unknown or
            needs a tag that is not among the classes.
        """
        return expand_documents(
            documents, self._reader, self.layers, self.tagging_scheme, training=training
        )

    def unreachable(self, documents: Any) -> list[Unreachable]:
        """Return the annotated entities that even perfect tags cannot represent.

        They start or end inside a word or a token, share a word with another entity, consist of
        characters that the tokenizer drops, or have a label that the tagger does not know. Scores
        count them as missed.

        Parameters
        ----------
        documents : Dataset
            Annotated documents.
        """
        return find_all_unreachable(documents, self._reader, self.layers, self.tagging_scheme)

    def preprocess(self, item: Document | DocumentWindow) -> dict[str, Any]:
        """Return the token ids, labels and annotation of a window of a document.

        Parameters
        ----------
        item : DocumentWindow or Document
            An item of `expand`, or a document (any object with `text` and `entities`) that fits in
            one window.

        Returns
        -------
        dict
            ``input_ids`` and ``labels``, lists of int with one entry for each token, and ``gold``,
            a `medjax.metrics.Gold`. The label of a token that does not count is -100.

        Raises
        ------
        ValueError
            If a document does not fit in one window, or has become shorter since it was expanded.
        """
        return window_example(item, self._reader, self.layers, self.tagging_scheme)

    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example.

        Returns
        -------
        BatchData
            ``input_ids``, ``attention_mask`` and ``labels``, int32, shape (rows, length), if
            entities may overlap labels of shape (rows, length, labels); and ``gold``, a list that
            stays on the host.
        """
        batch = self._token_columns(examples)
        batch["labels"] = padded([example["labels"] for example in examples], IGNORED)
        batch[GOLD] = [example[GOLD] for example in examples]
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
        """Return ``logits`` and ``predictions`` of each token, and the loss.

        It is the mean over all labelled tokens and, if entities may overlap, over labels; without
        class weights, each has weight 1. Then ``predictions`` have the shape (rows, length, labels)
        and ``logits`` the shape (rows, length, labels x tags of a label).
        """
        ids, mask = input_batch["input_ids"], input_batch["attention_mask"]
        logits = self._apply(variables, ids, mask, key, eval_mode)
        layers = self.layers
        of_layers = logits.reshape(*logits.shape[:2], len(layers), -1)
        predictions = of_layers.argmax(-1).astype(jnp.int32)
        if len(layers) == 1:
            predictions = predictions[..., 0]
        outputs = BatchData(logits=logits, predictions=predictions)
        if not return_loss:
            return outputs, None, {}
        labels = input_batch["labels"].reshape(of_layers.shape[:3])
        counts = (labels != IGNORED) & (input_batch[ROW_MASK][:, None, None] > 0)
        counts = jnp.broadcast_to(counts, labels.shape)
        loss, size = Mean.empty(), len(layers[0])
        for number in range(len(layers)):
            classes = self.tags[number * size : (number + 1) * size]
            of_layer, here = of_layers[:, :, number], (..., number)
            loss = loss.merge(self.loss.of_labels(of_layer, labels[here], counts[here], classes))
        return outputs, loss, {}

    @property
    def _meaning(self) -> dict[str, Any]:
        return {_SUBTOKENS: self.tag_subtokens}

    def _classes_in(self, folder: Path) -> tuple[str, ...]:
        return known_tags(folder)

    def predictor(
        self,
        variables: Variables,
        *,
        batch_size: int = 16,
        rule: str = "conlleval",
        options: Options | None = None,
    ) -> Callable[[Sequence[str]], list[tuple[Entity, ...]]]:
        """Return a function that finds entities, for many calls: it keeps its compiled programs.

        Parameters
        ----------
        variables : dict
            Trained weights, from ``result.state.variables`` or `load`.
        batch_size : int
            Number of windows that are passed to the model at once.
        rule : {"conlleval", "iob2", "bilou", "iobes", "io"}
            How entities are read from tags; see `medjax.text.tagging.tags_to_spans`. `SpanMetrics`
            has the same default.
        options : Options, optional
            Only `precision` is used. Pass the options of an evaluation to get the entities that it
            scored.

        Returns
        -------
        callable
            It takes texts of any length and returns a list with a tuple of entities for each. The
            score of an entity is the mean, over its words, of the probability of the predicted tag.
        """
        return functools.partial(
            predict_entities,
            self._predict_step(variables, options),
            reader=self._reader,
            collate=self.collate,
            layers=self.layers,
            batch_size=batch_size,
            rule=rule,
        )

    def predict(
        self,
        variables: Variables,
        texts: Sequence[str],
        *,
        batch_size: int = 16,
        rule: str = "conlleval",
        options: Options | None = None,
    ) -> list[tuple[Entity, ...]]:
        """Return the entities that the tagger finds in new texts; see `predictor`."""
        find = self.predictor(variables, batch_size=batch_size, rule=rule, options=options)
        return find(texts)
