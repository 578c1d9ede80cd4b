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

from medjax.alignment import entities_to_tags
from medjax.batch import ROW_MASK, BatchData
from medjax.component import TrainableComponent, Variables
from medjax.components.windows import Window, Word, read_words, split_windows
from medjax.config import Options
from medjax.data.ladder import HUGGING_FACE_PADDING, Ladder, fix_shape
from medjax.metrics.mean import Mean
from medjax.models import (
    TokenClassifier,
    Tokenizer,
    load_tokenizer,
    read_config,
    read_labels,
    read_params,
    resolve_model,
    write_checkpoint,
)
from medjax.models.attention import AttentionImplementation, check_implementation
from medjax.models.tokenizer import Encoding
from medjax.step import make_predict_step
from medjax.tagging import split_tag, tag_names, tags_to_spans
from medjax.text import Document, Entity

IGNORED = -100
"""Label of tokens that do not count: special tokens, padding, later tokens of a word."""

Optimizer = Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]


def adamw(learning_rate: optax.ScalarOrSchedule) -> optax.GradientTransformation:
    """Return AdamW with the defaults of ``torch.optim.AdamW``, which medkit trains with."""
    return optax.adamw(learning_rate, b1=0.9, b2=0.999, eps=1e-8, weight_decay=1e-2)


@dataclasses.dataclass(frozen=True)
class TokenClassification:
    """A tagger of text: finds entities and their place; made by `from_pretrained`.

    It takes `medjax.text.Document` items. A word is what the tokenizer's pre-tokeniser makes one;
    tags are those of words, and stand on the first token of each.

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
        Whether all tokens of a word are trained on and not only the first.
    max_length : int
        Tokens of an example; what is longer is cut off in training, and read in overlapping
        windows in `predict`.
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
            Whether all tokens of a word are trained on and not only the first.
        max_length : int, optional
            Tokens of an example; by default what the model takes, at most 512.
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
            If the model, the labels, the length or the name of the attention is not usable.
        """
        check_implementation(attention_implementation)
        folder = resolve_model(name_or_folder)
        config = read_config(folder)
        if labels is None:
            tags = tuple(read_labels(folder) or ())
            tagging_scheme = _scheme_of(tags, folder)
        else:
            tags = tag_names(labels, tagging_scheme)
            known = tuple(read_labels(folder) or ())
            tags = known if sorted(known) == sorted(tags) else tags
        if max_length is not None and not 2 < max_length <= config.max_length:
            msg = f"max_length is {max_length}; expected 3 to {config.max_length} for this model"
            raise ValueError(msg)
        return cls(
            TokenClassifier(config, len(tags), gradient_checkpointing, attention_implementation),
            load_tokenizer(folder),
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
        )

    @property
    def labels(self) -> list[str]:
        """Kinds of entities, in the order of their tags."""
        return list(dict.fromkeys(split_tag(tag)[1] for tag in self.tags if tag != "O"))

    def init(self, key: jax.Array) -> Variables:
        """Return the pretrained weights, with a random classifier where they have none."""
        tokens = jnp.ones((1, 3), jnp.int32)
        if self.folder is None:
            return dict(self.model.init(key, tokens, tokens, deterministic=True))
        params = read_params(self.folder, self.model.config)
        if tuple(read_labels(self.folder) or ()) != self.tags:
            size = (self.model.config.hidden_size, len(self.tags))
            scale = self.model.config.initializer_range
            kernel = nn.initializers.normal(scale)(key, size)
            params["classifier"] = {"kernel": kernel, "bias": np.zeros(len(self.tags), np.float32)}
        return {"params": params}

    def preprocess(self, item: Document) -> dict[str, Any]:
        """Return token ids and labels of a document.

        Parameters
        ----------
        item : Document
            Anything with a `text` and its `entities`.

        Returns
        -------
        dict
            ``input_ids`` and ``labels``, lists of int with one entry for each token; the label of
            a token that does not count is -100.
        """
        encoding = self.tokenizer.encode([item.text], self.max_length)[0]
        words = read_words(encoding)
        ids = {tag: number for number, tag in enumerate(self.tags)}
        labels = [IGNORED] * len(encoding.ids)
        if self.tag_subtokens:
            tokens = [position for word in words for position in word.tokens]
            offsets = [encoding.offsets[position] for position in tokens]
        else:
            tokens = [word.tokens[0] for word in words]
            offsets = [(word.start, word.end) for word in words]
        tags = entities_to_tags(item.entities, offsets, self.tagging_scheme)
        for position, tag in zip(tokens, tags, strict=True):
            if tag not in ids:
                msg = f"the data has the label {split_tag(tag)[1]!r}; expected one of {self.labels}"
                raise ValueError(msg)
            labels[position] = ids[tag]
        return {"input_ids": encoding.ids, "labels": labels}

    def collate(self, examples: Sequence[dict[str, Any]]) -> BatchData:
        """Return a batch padded to its longest example.

        Returns
        -------
        BatchData
            ``input_ids``, ``attention_mask`` and ``labels``, int32, shape (rows, length).
        """
        ids = [example["input_ids"] for example in examples]
        return BatchData(
            input_ids=_padded(ids, self.tokenizer.pad_token_id),
            attention_mask=_padded([[1] * len(row) for row in ids], 0),
            labels=_padded([example["labels"] for example in examples], IGNORED),
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
        """Return the weights of a folder that `save` wrote."""
        return {"params": read_params(path, self.model.config)}

    def predict(
        self, variables: Variables, texts: Sequence[str], *, batch_size: int = 16
    ) -> list[tuple[Entity, ...]]:
        """Find the entities of new texts.

        Parameters
        ----------
        variables : dict
            Trained weights: ``result.state.variables``, or from `load`.
        texts : sequence of str
            Texts of any length; long ones are read in windows that overlap by a quarter.
        batch_size : int
            Windows that go through the model together.

        Returns
        -------
        list of tuple of Entity
            For each text its entities by character offsets, with the mean probability of their
            words' tags as score.
        """
        encodings = self.tokenizer.encode(texts)
        windows = [
            window
            for number, encoding in enumerate(encodings)
            for window in split_windows(number, encoding, self.max_length)
        ]
        probabilities = [np.zeros((len(e.ids), len(self.tags)), np.float32) for e in encodings]
        # By length, so that windows of a batch need little padding.
        windows.sort(key=lambda window: len(window.ids))
        predict_step = make_predict_step(self.forward, Options())
        for first in range(0, len(windows), batch_size):
            batch = windows[first : first + batch_size]
            outputs = predict_step(variables, self._fixed(batch, batch_size))
            logits = jax.device_get(outputs["logits"])
            for window, scores in zip(batch, logits, strict=False):
                found = jax.nn.softmax(scores[window.first_kept : window.stop_kept])
                start = window.offset + window.first_kept
                probabilities[window.text][start : start + len(found)] = found
        return [self._entities(*pair) for pair in zip(encodings, probabilities, strict=True)]

    def _fixed(self, windows: Sequence[Window], nb_rows: int) -> BatchData:
        unlabelled = [{"input_ids": w.ids, "labels": [IGNORED] * len(w.ids)} for w in windows]
        lengths = (*(n for n in Options().length_ladder if n < self.max_length), self.max_length)
        return fix_shape(self.collate(unlabelled), Ladder(lengths, HUGGING_FACE_PADDING), nb_rows)

    def _entities(self, encoding: Encoding, probabilities: np.ndarray) -> tuple[Entity, ...]:
        words = read_words(encoding)
        best = probabilities[[word.tokens[0] for word in words]] if words else probabilities[:0]
        tags = [self.tags[number] for number in best.argmax(-1)]
        return tuple(
            _entity(label, words[first:stop], float(best[first:stop].max(-1).mean()))
            for label, first, stop in tags_to_spans(tags, "conlleval")
        )


def _entity(label: str, words: Sequence[Word], score: float) -> Entity:
    return Entity(label, words[0].start, words[-1].end, score)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int32)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def _scheme_of(tags: Sequence[str], folder: Path) -> str:
    if not tags:
        msg = f"{folder} is no token classifier with named tags; give labels=[...]"
        raise ValueError(msg)
    prefixes = {split_tag(tag)[0] for tag in tags}
    return "bilou" if prefixes & {"L", "U"} else "iob2"
