"""Generate recordings of synthetic speech, in which every letter is a chord of its own.

Written for medjax; there is no data of anybody in them. `examples/medkit_asr.py` generates them
when it runs; this script writes them to listen to. The parameters are those of `utterances`.
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np

SAMPLING_RATE = 16_000
WORDS = (
    "acute", "bed", "chest", "clear", "cough", "dose", "fever", "heart", "lungs", "no", "normal",
    "pain", "rash", "scan", "stable", "test",
)  # fmt: skip
LETTERS = "".join(sorted(set("".join(WORDS))))
_SECONDS = 0.06
"""Duration of a letter, and of the silence between words."""


class Utterance(NamedTuple):
    """A recording with its transcript.

    Attributes
    ----------
    samples : numpy.ndarray
        Int16, shape (samples,), at `SAMPLING_RATE`.
    text : str
        What is said.
    """

    samples: np.ndarray
    text: str


def utterances(count: int, seed: int, max_words: int = 4) -> list[Utterance]:
    """Return recordings of 1 to `max_words` words."""
    rng = np.random.default_rng(seed)
    texts = [
        " ".join(rng.choice(WORDS, rng.integers(1, max_words + 1)).tolist()) for _ in range(count)
    ]
    return [Utterance(_spoken(text, rng), text) for text in texts]


def _spoken(text: str, rng: np.random.Generator) -> np.ndarray:
    """Return the sound of a text: letters of varying length and loudness, in noise."""
    pitch = rng.uniform(0.98, 1.02)
    sounds = [_silence(rng)]
    for letter in text:
        sounds.append(_silence(rng) if letter == " " else _letter(letter, pitch, rng))
    signal = np.concatenate([*sounds, _silence(rng)])
    signal += rng.normal(0, 0.01, len(signal))
    return (signal * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)


def _silence(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(int(SAMPLING_RATE * _SECONDS * rng.uniform(0.8, 1.2)))


def _letter(letter: str, pitch: float, rng: np.random.Generator) -> np.ndarray:
    """Return two tones that no other letter has together, which fade in and out."""
    time = np.arange(int(SAMPLING_RATE * _SECONDS * rng.uniform(0.8, 1.2))) / SAMPLING_RATE
    high, low = divmod(LETTERS.index(letter), 4)
    tones = (300 * 1.35**low, 1500 * 1.3**high)
    fading = np.sqrt(np.sin(np.linspace(0, np.pi, len(time) + 1, endpoint=False)[1:]))
    phases = rng.uniform(0, 2 * np.pi, 2)
    waves = [
        np.sin(2 * np.pi * tone * pitch * time + phase)
        for tone, phase in zip(tones, phases, strict=True)
    ]
    return rng.uniform(0.15, 0.3) * fading * (waves[0] + waves[1])


def main() -> None:
    """Write WAV files and their transcripts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    spoken = utterances(args.count, args.seed)
    for number, utterance in enumerate(spoken):
        with wave.open(str(args.folder / f"{number:03d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLING_RATE)
            file.writeframes(utterance.samples.astype("<i2").tobytes())
    lines = [f"{number:03d}\t{utterance.text}\n" for number, utterance in enumerate(spoken)]
    (args.folder / "transcripts.tsv").write_text("".join(lines))


if __name__ == "__main__":
    main()
