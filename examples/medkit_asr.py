"""Train speech recognition with medkit's protocol, with one import changed.

`medjax_torch.Trainer` replaces `medkit.training.Trainer` and trains a tiny wav2vec2 with CTC or a
tiny Whisper on synthetic speech, in which every letter is a chord. ``--trainer medkit`` does the
same with medkit's own trainer, for comparison. The best checkpoint is loaded in medkit's
`HFTranscriber`. Needs ``pip install "medjax[medkit]" soundfile``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from asr_components import SpeechComponent, WhisperComponent, Written, tiny_wav2vec2, tiny_whisper

from medjax.metrics import TranscriptionMetrics

sys.path.insert(0, str(Path(__file__).parent / "data"))
from make_synthetic_speech import LETTERS, SAMPLING_RATE, Utterance, utterances

MODULES = {"medjax": "medjax_torch", "medkit": "medkit.training"}
LADDER = (SAMPLING_RATE // 2, 3 * SAMPLING_RATE // 4, SAMPLING_RATE)
"""Lengths of recordings in samples: 0.5, 0.75 and 1 second."""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=("wav2vec2", "whisper"), default="wav2vec2")
    add("--output", type=Path, default=Path("runs/medkit_asr"), help="folder for the checkpoints")
    add("--trainer", choices=tuple(MODULES), default="medjax")
    add("--size", type=int, default=320, help="number of recordings to train on")
    add("--epochs", type=int, default=25)
    add("--batch-size", type=int, default=16)
    add("--learning-rate", type=float, default=3e-3)
    add("--seed", type=int, default=0)
    add("--resume", action="store_true", help="continue from the last checkpoint (medjax)")
    return parser.parse_args(arguments)


class Recordings(torch.utils.data.Dataset):
    """Recordings as torch's DataLoader takes them."""

    def __init__(self, recordings: Sequence[Utterance]) -> None:
        self.recordings = recordings

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> Utterance:
        return self.recordings[index]


def make_component(name: str, folder: Path, batch_type: Any) -> SpeechComponent:
    """Return a component with random weights."""
    if name == "whisper":
        return tiny_whisper(LETTERS, batch_type)
    return tiny_wav2vec2(LETTERS, folder, batch_type)


def make_trainer(args: argparse.Namespace, devel: Sequence[Utterance]) -> Any:
    """Return the trainer that `args` names; both take the same arguments, except for options."""
    training = importlib.import_module(MODULES[args.trainer])
    folder = args.output / f"{args.model}-{args.trainer}"
    torch.manual_seed(args.seed)  # initialises the model
    component = make_component(args.model, folder, training.BatchData)
    config = training.TrainerConfig(
        output_dir=folder,
        learning_rate=args.learning_rate,
        nb_training_epochs=args.epochs,
        batch_size=args.batch_size,
        seed=args.seed,
        checkpoint_metric="character_error_rate",
        minimize_checkpoint_metric=True,
    )
    metrics: Any = TranscriptionMetrics(component.decode)
    if isinstance(component, WhisperComponent):
        metrics = Written(component, metrics)
    beyond_medkit = {}
    if args.trainer == "medjax" and args.model == "wav2vec2":
        options = training.Options(length_ladder=LADDER, padding={"input_values": 0.0})
        beyond_medkit = {"options": options}
    return training.Trainer(
        component,
        config,
        Recordings(utterances(args.size, args.seed, max_words=2)),
        Recordings(devel),
        metrics_computer=metrics,
        **beyond_medkit,
    )


def transcribe(folder: Path, recordings: Sequence[Utterance]) -> list[str]:
    """Return what medkit's HFTranscriber hears with the model in a folder."""
    from medkit.audio.transcription import hf_transcriber
    from medkit.core.audio import MemoryAudioBuffer, Segment, Span

    # It asks the Hugging Face Hub what a model is for, and so takes no folder without this.
    with mock.patch.object(
        hf_transcriber.transformers.pipelines,
        "get_task",
        return_value="automatic-speech-recognition",
    ):
        transcriber = hf_transcriber.HFTranscriber(
            model=str(folder), add_trailing_dot=False, capitalize=False
        )
    segments = []
    for recording in recordings:
        signal = recording.samples[None] / np.float32(2**15)
        audio = MemoryAudioBuffer(signal, sample_rate=SAMPLING_RATE)
        segments.append(Segment(label="speech", audio=audio, span=Span(0, audio.duration)))
    transcriber.run(segments)
    return [segment.attrs.get(label="transcribed_text")[0].value for segment in segments]


def main(arguments: Sequence[str] | None = None) -> list[dict[str, dict[str, float]]]:
    """Train, and let medkit transcribe some recordings with the best checkpoint."""
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    devel = utterances(64, args.seed + 1, max_words=2)
    trainer = make_trainer(args, devel)
    began = time.monotonic()
    history: list[dict[str, dict[str, float]]] = trainer.train(
        **({"resume": "auto"} if args.resume else {})
    )
    print(f"Trained in {time.monotonic() - began:.0f} s: {history[-1]['eval']}")
    if args.trainer == "medjax":
        print(trainer.conversion_cost)
        for heard, recording in zip(
            transcribe(trainer.best_checkpoint, devel[:5]), devel, strict=False
        ):
            print(f"{recording.text!r}: heard {heard!r}")
    return history


if __name__ == "__main__":
    main()
