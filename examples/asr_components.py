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


def tiny_wav2vec2(
    letters: str, folder: Path, batch_type: Callable[..., Any], **changes: Any
) -> CTCComponent:
    """Return a component with a tiny model; its vocabulary is written into a folder.

    `changes` are fields of the model's configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: id for id, token in enumerate(("<pad>", "<unk>", "|", *letters))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    processor = transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True),
        transformers.Wav2Vec2CTCTokenizer(
            str(folder / "vocab.json"), bos_token=None, eos_token=None
        ),
    )
    sizes = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "conv_dim": (64, 64, 64),
        "conv_kernel": (64, 5, 3),
        "conv_stride": (32, 5, 2),
        "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
    }
    without_dropout = {
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "layerdrop": 0.0,
    }
    others = {
        "vocab_size": len(vocabulary),
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "mask_time_prob": 0.02,
        "mask_time_length": 2,
        "ctc_loss_reduction": "mean",
        "ctc_zero_infinity": True,
        "pad_token_id": vocabulary["<pad>"],
    }
    config = transformers.Wav2Vec2Config(**{**sizes, **without_dropout, **others, **changes})
    return CTCComponent(transformers.Wav2Vec2ForCTC(config), processor, batch_type)


class WhisperComponent(SpeechComponent):
    """Trains Whisper to write what it hears.

    Every recording is padded to the model's input, as Whisper demands, so only labels are ragged.
    """

    def preprocess(self, data_item: Any) -> dict[str, Any]:
        """Return the log-mel spectrogram of a recording, and the ids of its text."""
        rate = self.processor.feature_extractor.sampling_rate
        heard = self.processor.feature_extractor(
            data_item.samples / np.float32(2**15), sampling_rate=rate
        )
        # The model itself puts the first token before them.
        labels = self.processor.tokenizer(data_item.text).input_ids[1:]
        return {"input_features": heard.input_features[0], "labels": labels}

    def collate(self, batch: list[dict[str, Any]]) -> Any:
        """Join spectrograms and ids."""
        features = np.stack([example["input_features"] for example in batch])
        return self.batch_type(input_features=torch.as_tensor(features), labels=self._labels(batch))

    def forward(
        self, input_batch: Any, return_loss: bool, eval_mode: bool
    ) -> tuple[Any, torch.Tensor | None]:
        """Return the loss; `Written` is about what the model writes on its own."""
        self.model.train(not eval_mode)
        output = self.model(
            input_batch["input_features"], labels=input_batch["labels"], use_cache=False
        )
        return self.batch_type(logits=output.logits), output.loss

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return the text of ids, predicted ones or labels."""
        return self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)


class Written:
    """Scores what Whisper writes by ``generate``, as a MetricsComputer around another.

    ``generate`` decides in Python when to stop, so it cannot be part of a graph. Here torch runs it
    on the host with the current weights, under either trainer.

    Parameters
    ----------
    component : WhisperComponent
        The component that is evaluated.
    metrics : MetricsComputer
        Takes the ids as ``"predictions"``.
    """

    def __init__(self, component: WhisperComponent, metrics: Any) -> None:
        self._component = component
        self._metrics = metrics

    def prepare_batch(self, model_output: Any, input_batch: Any) -> dict[str, list[Any]]:
        """Return what the other computer needs of what the model writes for a batch."""
        model = self._component.model
        model.eval()
        with torch.no_grad():
            predictions = model.generate(torch.as_tensor(input_batch["input_features"]))
        return self._metrics.prepare_batch({"predictions": predictions}, input_batch)

    def compute(self, all_data: dict[str, list[Any]]) -> dict[str, float]:
        """Return the scores."""
        return self._metrics.compute(all_data)


def tiny_whisper(
    letters: str, batch_type: Callable[..., Any], *, seconds: int = 2, max_length: int = 20
) -> WhisperComponent:
    """Return a component with a tiny model for recordings of a duration and texts of a length."""
    end, *special = (
        "<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|translate|>",
        "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>",
    )  # fmt: skip
    tokenizer = transformers.WhisperTokenizer(
        vocab={token: id for id, token in enumerate((*letters, "\u0120", end))},  # \u0120: a space
        merges=[],
        pad_token=end,
        additional_special_tokens=special,
    )
    processor = transformers.WhisperProcessor(
        transformers.WhisperFeatureExtractor(feature_size=40, chunk_length=seconds), tokenizer
    )
    last = tokenizer.convert_tokens_to_ids(end)
    config = transformers.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=40,
        d_model=64,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=128,
        decoder_ffn_dim=128,
        max_source_positions=50 * seconds,
        max_target_positions=max_length,
        bos_token_id=last,
        eos_token_id=last,
        pad_token_id=last,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids(special[0]),
    )
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config.update(
        max_length=max_length,
        is_multilingual=False,
        no_timestamps_token_id=tokenizer.convert_tokens_to_ids(special[-1]),
    )
    return WhisperComponent(model, processor, batch_type)
