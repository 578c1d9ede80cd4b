"""Relation classification: which pairs of entities of a document are related, and how."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from medjax.batch import ROW_MASK, BatchData
from medjax.component import ExpandedData, TrainableComponent, Variables
from medjax.components.documents import check_document, name_of
from medjax.components.encoder_component import EncoderComponent
from medjax.components.folders import check_order, open_folder
from medjax.components.losses import CROSS_ENTROPY, ClassificationLoss
from medjax.components.optimizers import Optimizer, adamw
from medjax.components.relation_data import (
    MARKS,
    Kinds,
    Pair,
    PairReader,
    Stratum,
    choose_marks,
    expand_pairs,
    gold_of,
    marked_text,
)
from medjax.components.text_labels import choose_classes
from medjax.components.text_prediction import predict_logits
from medjax.config import Options
from medjax.metrics import IGNORED, PAIR, Mean
from medjax.models import TEXT_CLASSIFICATION, TextClassifier, Tokenizer
from medjax.models.attention import AttentionImplementation, check_implementation
from medjax.text import Relation

__all__ = ["NO_RELATION", "RELATION_SETTINGS", "RelationClassification"]

NO_RELATION = "no relation"
"""Name of the class of pairs that are not related."""

RELATION_SETTINGS = "relation_candidates"
"""Field of config.json that medjax adds: kinds of pairs, reach, context and marks."""


@dataclasses.dataclass(frozen=True)
class RelationClassification(EncoderComponent):
    """A classifier of pairs of entities; usually made by `from_pretrained`.

    Its items are `medjax.text.Document` objects with entities and relations, best read with
    ``overlapping=True``, so that none is left out. Candidates are the ordered pairs of entities
    whose labels are among `kinds` and that are at most `reach` characters apart. Each is a row of a
    batch: the text around it, with both entities and their labels marked by punctuation (typed
    entity markers). Annotated relations that are no candidates count as missed in all scores, and a
    note says how many there are.

    Attributes
    ----------
    model : TextClassifier
        The Flax model.
    tokenizer : Tokenizer
        Its tokenizer.
    labels : tuple of str
        Kinds of relations, in the order of the logits, after that of `NO_RELATION`.
    kinds : tuple of (str, str)
        Labels of the entities that a relation may go from and to.
    reach : int
        Largest number of characters between the two entities.
    context : int
        Number of characters before and after them that the model reads; fewer if these do not fit
        in `max_length` tokens.
    negatives : float or None
        In training, how many pairs without a relation are drawn for each pair with one, anew in
        each epoch; which ones depends on the seed, the epoch and the item. None for all pairs.
    max_length : int
        Largest number of tokens of a row.
    marks : str
        Four characters that mark the two entities and their labels; `from_pretrained` chooses some
        that the tokenizer knows.
    optimizer : callable
        Returns an optax transformation for a learning rate.
    loss : ClassificationLoss
        Cross-entropy by default.
    folder : Path or None
        Checkpoint that the weights are read from; None for random weights.
    """

    task = TEXT_CLASSIFICATION

    model: TextClassifier
    tokenizer: Tokenizer
    labels: tuple[str, ...]
    kinds: Kinds
    reach: int = 300
    context: int = 200
    negatives: float | None = None
    max_length: int = 512
    marks: str = MARKS
    optimizer: Optimizer = adamw
    loss: ClassificationLoss = CROSS_ENTROPY
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Check the settings of candidates and the loss."""
        if not self.kinds or any(len(kind) != 2 for kind in self.kinds):
            msg = f"kinds is {self.kinds!r}; expected pairs of labels such as ('Drug', 'Disease')"
            raise ValueError(msg)
        if self.reach < 0 or self.context < 0:
            msg = f"reach is {self.reach}, context {self.context}; expected at least 0 characters"
            raise ValueError(msg)
        if self.negatives is not None and not 0 <= self.negatives < np.inf:
            msg = f"negatives is {self.negatives}; expected at least 0, or None for all pairs"
            raise ValueError(msg)
        self.loss.check(self.classes, multi_label=False)

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path,
        labels: Sequence[str] | None = None,
        kinds: Sequence[tuple[str, str]] | None = None,
        *,
        reach: int | None = None,
        context: int | None = None,
        negatives: float | None = None,
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
        labels, kinds : sequence, optional
            Kinds of relations, in the order of the logits, and of pairs;
            `medjax.text.relation_kinds` finds those of a corpus. By default those of the
            checkpoint, which this class must have written.
        reach, context : int, optional
            By default those of the checkpoint, or 300 and 200 characters.
        max_length : int, optional
            Tokens of a row. By default those of the checkpoint, or the most the model takes, up to
            512.
        negatives, optimizer, loss
            See the class.
        gradient_checkpointing, attention_implementation
            See `TokenClassification.from_pretrained`.

        Raises
        ------
        ValueError
            If the model or an argument cannot be used, or the weights, configuration and tokenizer
            of the model do not belong together.
        """
        check_implementation(attention_implementation)
        opened = open_folder(name_or_folder, cls.task, max_length)
        stored = opened.content.get(RELATION_SETTINGS) or {}
        if kinds is None and "kinds" not in stored:
            msg = (
                f"{opened.folder} is not a classifier of relations; pass labels=[...] and "
                "kinds=[...] to train a new one: medjax.text.relation_kinds finds those of a corpus"
            )
            raise ValueError(msg)
        if labels is not None and (isinstance(labels, str) or not labels):
            msg = f"labels is {labels!r}; expected kinds of relations such as ['Treats'], or None"
            raise ValueError(msg)
        if labels is not None and NO_RELATION in labels:
            raise ValueError(f"labels contain {NO_RELATION!r}; leave it out, it is always a class")
        check_order(labels)
        wanted = None if labels is None else [NO_RELATION, *labels]
        classes = choose_classes(opened.folder, wanted)
        if classes[0] != NO_RELATION:
            msg = f"{opened.folder} has the classes {list(classes)}; expected {NO_RELATION!r} first"
            raise ValueError(msg)
        return cls(
            model=TextClassifier(
                opened.config, len(classes), gradient_checkpointing, attention_implementation
            ),
            tokenizer=opened.tokenizer,
            labels=classes[1:],
            kinds=tuple(tuple(kind) for kind in (stored["kinds"] if kinds is None else kinds)),
            reach=stored.get("reach", 300) if reach is None else reach,
            context=stored.get("context", 200) if context is None else context,
            negatives=negatives,
            max_length=opened.max_length,
            marks=stored.get("marks") or choose_marks(opened.tokenizer),
            optimizer=optimizer,
            loss=loss,
            folder=opened.folder,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return (NO_RELATION, *self.labels)

    @property
    def component(self) -> TrainableComponent:
        """The record of functions that `medjax.train` and `medjax.evaluate` take."""
        parts = super().component
        return parts if self.negatives is None else parts._replace(preprocess=self.draw)

    @property
    def _reader(self) -> PairReader:
        return PairReader(self.labels, self.kinds, self.reach)

    def expand(self, documents: Any, *, training: bool = True) -> ExpandedData:
        """Return the candidates of all documents; `medjax.train` and `medjax.evaluate` call it.

        Parameters
        ----------
        documents : Dataset
            Documents.
        training : bool
            True if the documents are for training: then `negatives` are drawn, and unknown kinds of
            relations are refused. In an evaluation, these count as missed, and a document without
            candidates has one row, whose prediction does not count.

        Raises
        ------
        ValueError
            If a document is malformed, a relation is of an unknown kind, or there are no
            candidates.
        """
        return expand_pairs(documents, self._reader, training=training, negatives=self.negatives)

    def draw(self, item: Pair | Stratum, rng: np.random.Generator | None = None) -> dict[str, Any]:
        """Return the example of a pair, of a stratum of one that is drawn.

        Parameters
        ----------
        item : Pair or Stratum
            An item of `expand`.
        rng : numpy.random.Generator
            That of the item in this epoch.
        """
        if isinstance(item, Stratum):
            assert rng is not None  # strata are made for training, where each item has one
            item = item.draw(rng)
        return self.preprocess(item)

    def preprocess(self, item: Pair) -> dict[str, Any]:
        """Return the token ids of the marked text of a pair, and its class.

        Parameters
        ----------
        item : Pair
            An item of `expand`.

        Returns
        -------
        dict
            ``input_ids``, a list of int; ``label``, an int, -100 for a row without a pair; and
            ``pair``, a `medjax.metrics.PairGold`.
        """
        document = item.documents[item.position]
        label = IGNORED
        if item.head is not None:
            label = 0 if item.label is None else self.classes.index(item.label)
        return {"input_ids": self._tokens(document, item), "label": label, PAIR: gold_of(item)}

    def _tokens(self, document: Any, pair: Pair) -> list[int]:
        """Return the tokens of a pair, with less context if there would be too many."""
        if pair.head is None or pair.tail is None:
            return self.tokenizer.encode([""])[0].ids
        head, tail = document.entities[pair.head], document.entities[pair.tail]
        context = self.context
        while True:
            text = marked_text(document.text, head, tail, context, self.marks)
            ids = self.tokenizer.encode([text])[0].ids
            if len(ids) <= self.max_length or context == 0:
                break
            context //= 2
        if len(ids) > self.max_length:
            msg = (
                f"{name_of(document)} has {head.label} at {head.start} to {head.end} and "
                f"{tail.label} at {tail.start} to {tail.end}, which take {len(ids)} tokens with "
                f"their marks; expected at most max_length, {self.max_length}: increase it, or "
                "leave out entities that are so long"
            )
            raise ValueError(msg)
        return ids

    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example.

        Returns
        -------
        BatchData
            ``input_ids`` and ``attention_mask``, int32, shape (rows, length); ``labels``, int32,
            shape (rows,); ``pair``, a list that stays on the host.
        """
        batch = self._token_columns(examples)
        batch["labels"] = np.array([example["label"] for example in examples], np.int32)
        batch[PAIR] = [example[PAIR] for example in examples]
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
        """Return ``logits`` and ``predictions`` of each pair, and the mean loss over pairs."""
        ids, mask = input_batch["input_ids"], input_batch["attention_mask"]
        logits = self._apply(variables, ids, mask, key, eval_mode)
        outputs = BatchData(logits=logits, predictions=logits.argmax(-1).astype("int32"))
        if not return_loss:
            return outputs, None, {}
        labels = input_batch["labels"]
        counts = (labels != IGNORED) & (input_batch[ROW_MASK] > 0)
        return outputs, self.loss.of_labels(logits, labels, counts, self.classes), {}

    @property
    def _meaning(self) -> dict[str, Any]:
        candidates = {
            "kinds": self.kinds,
            "reach": self.reach,
            "context": self.context,
            "marks": self.marks,
        }
        return {"problem_type": "single_label_classification", RELATION_SETTINGS: candidates}

    def predictor(
        self,
        variables: Variables,
        *,
        batch_size: int = 16,
        options: Options | None = None,
    ) -> Callable[[Sequence[Any]], list[tuple[Relation, ...]]]:
        """Return a function that finds relations, for many calls: it keeps its compiled programs.

        Parameters
        ----------
        variables : dict
            Trained weights, from ``result.state.variables`` or `load`.
        batch_size : int
            Number of pairs that are passed to the model at once.
        options : Options, optional
            Only `precision` is used.

        Returns
        -------
        callable
            It takes documents with entities, ignores their relations, and returns a list with the
            relations of each, with their probabilities.
        """
        classify = functools.partial(
            predict_logits,
            self._predict_step(variables, options),
            collate=self.collate,
            max_length=self.max_length,
            batch_size=batch_size,
        )
        return functools.partial(self._find, classify)

    def predict(
        self,
        variables: Variables,
        documents: Sequence[Any],
        *,
        batch_size: int = 16,
        options: Options | None = None,
    ) -> list[tuple[Relation, ...]]:
        """Return the relations between the entities of documents; see `predictor`."""
        return self.predictor(variables, batch_size=batch_size, options=options)(documents)

    def _find(
        self, classify: Callable[[list[dict[str, Any]]], list[Any]], documents: Sequence[Any]
    ) -> list[tuple[Relation, ...]]:
        for document in documents:
            check_document(document)
        pairs = [
            Pair(documents, position, head, tail)
            for position, document in enumerate(documents)
            for head, tail in self._reader.candidates(document)
        ]
        logits = classify([self.preprocess(pair) for pair in pairs])
        found: list[list[Relation]] = [[] for _ in documents]
        for pair, row in zip(pairs, logits, strict=True):
            best = int(row.argmax())
            if best > 0 and pair.head is not None and pair.tail is not None:
                score = float(jax.nn.softmax(row)[best])
                relation = Relation(self.classes[best], pair.head, pair.tail, score)
                found[pair.position].append(relation)
        return [tuple(relations) for relations in found]
