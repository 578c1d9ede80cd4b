"""Exits right after a save: the save is committed, the process ends, its error is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import job
import pytest
from breaking import At

import medjax

LONGEST = 10.0  # seconds from leaving to the end of the process

KINDS = {
    "exit": (7, ""),
    "exception": (1, "ValueError: mine"),
    "end": (0, ""),
}


@pytest.mark.parametrize("workers", ["0", pytest.param("2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_leaves_after_a_save(kind, workers, tmp_path):
    code, message = KINDS[kind]
    out = tmp_path / "out"
    here = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(medjax.__file__).parents[1]), str(here)]),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, str(here / "leave.py"), str(out), kind, workers],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    ended = time.time()
    assert done.returncode == code, done.stderr
    assert ended - float(done.stdout.split()[-1]) < LONGEST
    assert message in done.stderr
    if kind == "exception":
        assert done.stderr.rstrip().splitlines()[-1].startswith("raised by the callback At")
    assert [path.name[:11] for path in out.iterdir()] == ["checkpoint_"] * len(list(out.iterdir()))
    last = medjax.last_checkpoint(out)
    record = json.loads((last / "training_state.json").read_text())
    position = record["progress"]["epoch"], record["progress"]["batch"]
    assert position == ((2, 0) if kind == "end" else (1, 3))
    again = job.run(out, resume="auto", options=job.EVERY_3, nb_training_epochs=2)
    assert len(again.history) == 2


class Full(medjax.TrainerCallback):
    """Makes every later save fail, and remembers how training ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch, self.error = monkeypatch, None

    def on_save(self) -> None:
        self.monkeypatch.setattr("medjax.checkpoint.saver.write_manifest", self._fail)

    def _fail(self, folder: Path) -> None:
        time.sleep(0.5)
        raise OSError(28, "No space left on device")

    def on_exception(self, error: BaseException) -> None:
        self.error = error


def test_a_failing_save_does_not_mask_the_error_of_training(tmp_path, monkeypatch):
    full = Full(monkeypatch)

    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        job.run(tmp_path / "out", callback=[full, At(1, 3, "train", fail)], options=job.EVERY_3)
    assert full.error is raised.value
    assert any("could not be saved" in note for note in raised.value.__notes__)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failing_save_ends_a_run_that_had_no_other_error(tmp_path, monkeypatch):
    full = Full(monkeypatch)
    with pytest.raises(medjax.CheckpointError, match="could not be saved"):
        job.run(tmp_path / "out", callback=full, nb_training_epochs=1)
    assert isinstance(full.error, medjax.CheckpointError)


def test_a_failing_callback_at_the_end_does_not_mask_the_error_of_training(tmp_path):
    class Clumsy(medjax.TrainerCallback):
        def on_exception(self, error: BaseException) -> None:
            raise KeyError("clumsy")

    def fail() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        job.run(tmp_path / "out", callback=[Clumsy(), At(1, 3, "train", fail)])
    assert any("KeyError: 'clumsy'" in note for note in raised.value.__notes__)
