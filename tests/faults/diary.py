"""A callback that writes down every training batch, for processes that do not live to tell."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import medjax


class Line(NamedTuple):
    """A training batch that was done: epoch from 1, batch from 0, and its seconds."""

    epoch: int
    batch: int
    seconds: float


class Diary(medjax.TrainerCallback):
    """Appends a line to a file for each training batch; what is written outlives a SIGKILL."""

    def __init__(self, file: Path) -> None:
        self._file = file.open("ab", buffering=0)
        self._epoch, self._began = 0, 0.0

    def on_epoch_begin(self, epoch: int) -> None:
        self._epoch = epoch

    def on_step_begin(self, step_idx: int, phase: str) -> None:
        self._began = time.monotonic()

    def on_step_end(self, step_idx: int, phase: str) -> None:
        if phase == "train":
            seconds = time.monotonic() - self._began
            self._file.write(f"{self._epoch} {step_idx} {seconds}\n".encode())


def read(file: Path) -> list[Line]:
    """Return the lines of a diary, in the order in which they were written."""
    if not file.exists():
        return []
    rows = [line.split() for line in file.read_text().splitlines()]
    return [Line(int(epoch), int(batch), float(seconds)) for epoch, batch, seconds in rows]
