"""Speech recognition in medkit's protocol: components for wav2vec2 with CTC and for Whisper.

The models are tiny and start from random weights; `load` also takes any folder that `save` wrote.
The protocol is duck-typed: neither medkit nor medjax is needed to use them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.utils.rnn import pad_sequence

IGNORED = -100
MAX_LETTERS = 256
"""Number of letters of a recording that `CTCComponent` returns."""


class SpeechComponent:
    """What both components share: data, optimizer and files.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        The model.
    processor : transformers.ProcessorMixin
        Its feature extractor and tokenizer.
    batch_type : callable
        Makes a batch from a dict: ``BatchData`` of the trainer's package.
    """

    def __init__(self, model: Any, processor: Any, batch_type: Callable[..., Any]) -> None:
        self.model = model
        self.processor = processor
        self.batch_type = batch_type
        self.device = torch.device("cpu")

    def configure_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """Return AdamW of all parameters."""
        return torch.optim.AdamW(self.model.parameters(), lr=lr)

    def save(self, path: str | Path) -> None:
        """Write a Hugging Face folder, which pipelines and medkit's HFTranscriber load."""
        self.model.save_pretrained(path)
        self.processor.save_pretrained(path)

    def load(self, path: str | Path) -> None:
        """Load the weights of a folder."""
        loaded = type(self.model).from_pretrained(path)
        self.model.load_state_dict(loaded.state_dict())

    def _labels(self, examples: Sequence[dict[str, Any]]) -> torch.Tensor:
        labels = [torch.as_tensor(example["labels"]) for example in examples]
        return pad_sequence(labels, batch_first=True, padding_value=IGNORED)


class CTCComponent(SpeechComponent):
    """Trains wav2vec2 to spell what it hears.

    Recordings are padded to the longest of a batch, which an attention mask says. That is harmless
    for models whose feature extractor normalises each position (``feat_extract_norm="layer"``).
    """

    def preprocess(self, data_item: Any) -> dict[str, Any]:
        """Return a recording with zero mean and unit variance, and the ids of its letters."""
        rate = self.processor.feature_extractor.sampling_rate
        heard = self.processor(data_item.samples.astype(np.float32), sampling_rate=rate)
        labels = self.processor.tokenizer(data_item.text).input_ids
        return {"input_values": heard.input_values[0], "labels": labels}

    def collate(self, batch: list[dict[str, Any]]) -> Any:
        """Join recordings and letters."""
        values = [torch.as_tensor(example["input_values"]) for example in batch]
        return self.batch_type(
            input_values=pad_sequence(values, batch_first=True),
            attention_mask=pad_sequence(
                [torch.ones(len(value), dtype=torch.int64) for value in values], batch_first=True
            ),
            labels=self._labels(batch),
        )

    def forward(
        self, input_batch: Any, return_loss: bool, eval_mode: bool
    ) -> tuple[Any, torch.Tensor | None]:
        """Return the letters that the most probable path spells, and the loss."""
        self.model.train(not eval_mode)
        mask = input_batch["attention_mask"]
        output = self.model(
            input_batch["input_values"],
            attention_mask=mask,
            labels=input_batch["labels"] if return_loss else None,
        )
        ends = self.model._get_feat_extract_output_lengths(mask.sum(-1))
        blank = self.model.config.pad_token_id
        predictions = spelled(output.logits.argmax(-1), ends, blank)
        return self.batch_type(predictions=predictions), output.loss

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of letters, predicted ones or labels."""
        return self.processor.tokenizer.batch_decode(ids, group_tokens=False)


def spelled(path: torch.Tensor, ends: torch.Tensor, blank: int) -> torch.Tensor:
    """Return the letters of a path of CTC: without repetitions, then without blanks.

    The result has the same shape for recordings of any length, so that these can be padded.

    Parameters
    ----------
    path : torch.Tensor
        Int64, shape (rows, frames).
    ends : torch.Tensor
        The number of frames of each row.
    blank : int
        Id of the blank.

    Returns
    -------
    torch.Tensor
        Int64, shape (rows, `MAX_LETTERS`), with -100 after the last letter.
    """
    frames = torch.arange(path.shape[1], device=path.device)
    before = torch.nn.functional.pad(path[:, :-1], (1, 0), value=blank)
    heard = (path != before) & (path != blank) & (frames < ends[:, None])
    places = torch.where(heard, heard.long().cumsum(1) - 1, MAX_LETTERS).clamp(max=MAX_LETTERS)
    letters = path.new_full((len(path), MAX_LETTERS + 1), IGNORED)
    return letters.scatter(1, places, path)[:, :MAX_LETTERS]


def tiny_wav2vec2(letters: str, folder: Path, batch_type: Callable[..., Any]) -> CTCComponent:
    """Return a component with a tiny model; its vocabulary is written into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: id for id, token in enumerate(("<pad>", "<unk>", "|", *letters))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    processor = transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True),
        transformers.Wav2Vec2CTCTokenizer(
            str(folder / "vocab.json"), bos_token=None, eos_token=None
        ),
    )
    config = transformers.Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(64, 64, 64),
        conv_kernel=(64, 5, 3),
        conv_stride=(32, 5, 2),
        num_feat_extract_layers=3,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.02,
        mask_time_length=2,
        ctc_loss_reduction="mean",
        ctc_zero_infinity=True,
        pad_token_id=vocabulary["<pad>"],
    )
    return CTCComponent(transformers.Wav2Vec2ForCTC(config), processor, batch_type)
