"""A callback that records every batch in a file, for processes that get killed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import medjax


class Line(NamedTuple):
    """A batch that was done: "train" or "eval", epoch from 1, batch from 0, and its seconds."""

    phase: str
    epoch: int
    batch: int
    seconds: float


class Diary(medjax.TrainerCallback):
    """Appends a line to a file for each batch; what is written survives a SIGKILL."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)
        self._epoch, self._began = 0, 0.0

    def on_epoch_begin(self, epoch: int) -> None:
        self._epoch = epoch

    def on_step_begin(self, step_idx: int, phase: str) -> None:
        self._began = time.monotonic()

    def on_step_end(self, step_idx: int, phase: str) -> None:
        seconds = time.monotonic() - self._began
        self._file.write(f"{phase} {self._epoch} {step_idx} {seconds}\n".encode())


def read(file: Path, phases: tuple[str, ...] = ("train",)) -> list[Line]:
    """Return the lines of a diary, in the order in which they were written."""
    if not file.exists():
        return []
    rows = [line.split() for line in file.read_text().splitlines()]
    return [
        Line(phase, int(epoch), int(batch), float(seconds))
        for phase, epoch, batch, seconds in rows
        if phase in phases
    ]
