"""The work that every contender does, and how it is measured."""

from __future__ import annotations

import dataclasses
import importlib
import resource
import statistics
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import machine
import numpy as np

from medjax.text import Document

CONTENDERS = {
    "medkit": ("contenders.medkit_api", ("float32",)),
    "medjax_torch": ("contenders.medkit_api", ("float32", "bfloat16")),
    "medjax_torch grouped": ("contenders.medkit_api", ("float32", "bfloat16")),
    "HF Trainer": ("contenders.peers", ("float32", "bfloat16")),
    "HF Trainer grouped": ("contenders.peers", ("float32", "bfloat16")),
    "Lightning": ("contenders.peers", ("float32", "bfloat16")),
    "torch loop": ("contenders.peers", ("float32", "bfloat16")),
    "jitted loop": ("contenders.functional", ("float32", "bfloat16")),
    "medjax": ("contenders.functional", ("float32", "bfloat16")),
}
"""Maps a name to the module whose `train` runs it and to the precisions it offers."""


@dataclasses.dataclass(frozen=True)
class Work:
    """What to train on and how; the same for every contender.

    Attributes
    ----------
    name, precision : str
        The contender, and the precision it computes in.
    train, test : sequence of Document
        The sentences.
    output : Path
        An empty folder for the checkpoints.
    epochs, batch_size, max_length, seed : int
        As in a TrainerConfig; `max_length` in tokens.
    learning_rate : float
        Constant over the run.
    model : str
        Name or folder of the pretrained encoder.
    """

    name: str
    precision: str
    train: list[Document]
    test: list[Document]
    output: Path
    epochs: int = 3
    batch_size: int = 16
    max_length: int = 128
    seed: int = 0
    learning_rate: float = 1e-4
    model: str = "minilm"

    @property
    def labels(self) -> list[str]:
        """Labels of the entities in the training text."""
        return sorted({entity.label for document in self.train for entity in document.entities})

    @property
    def grouped(self) -> bool:
        """Whether batches are grouped by length."""
        return self.name.endswith("grouped")


class Clock:
    """Records when every epoch ended, including its evaluation, and the F1 it reached."""

    def __init__(self) -> None:
        self.marks = [time.perf_counter()]
        self.scores: list[float] = []

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Record the end of an epoch and its macro F1."""
        self.marks.append(time.perf_counter())
        self.scores.append(metrics["macro_f1-score"])


def run(work: Work) -> dict[str, Any]:
    """Do the work and return the measurements, ready for JSON."""
    module = importlib.import_module(CONTENDERS[work.name][0])
    clock = Clock()
    facts = module.train(work, clock)
    whole = time.perf_counter() - clock.marks[0]
    epochs = np.diff(clock.marks).tolist()
    return {
        "name": work.name,
        "precision": work.precision,
        "whole_s": whole,
        "epochs_s": epochs,
        "steady_s": statistics.median(epochs[1:] or epochs),
        "ends_s": [mark - clock.marks[0] for mark in clock.marks[1:]],
        "scores": clock.scores,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "device_mb": machine.device_mb(),
        **facts,
    }


def padding(batches: Iterable[Any]) -> dict[str, Any]:
    """Count the real tokens of batches, their share of padding, and their distinct shapes.

    Parameters
    ----------
    batches : iterable of (rows, length, lengths)
        Size of each batch as it is computed, and the lengths of its rows without padding.
    """
    real, computed, shapes = 0, 0, set()
    for rows, length, lengths in batches:
        real += int(np.sum(lengths))
        computed += rows * length
        shapes.add((rows, length))
    return {"tokens": real, "padding": 1 - real / computed, "shapes": len(shapes)}
