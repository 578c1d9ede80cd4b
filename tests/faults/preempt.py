"""Signal a training job at random moments until it completes, and count what that costs:
``python tests/faults/preempt.py --signals 20``, with ``--door medjax_torch`` for the drop-in.

A job that has begun to train must save at its next step, exit within seconds with 128 + the number
of the signal, and lose no step: all its processes together do every training batch exactly once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import diary
from kill import JOBS, ended, start

SIGNALS = (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR1)


def signal_once(
    child: int, folder: Path, rng: random.Random, longest: float, last: diary.Line
) -> tuple[int, float] | None:
    """Signal a process at a random time after its first batch.

    Returns
    -------
    tuple of int and float, or None
        The signal, and the seconds until the process ended; None if it had trained to the end.
    """
    before = len(diary.read(folder / "diary.txt"))
    while len(diary.read(folder / "diary.txt")) == before:
        if (code := ended(child)) is not None:
            assert code == 0, f"the job failed with {code}"
            return None
        time.sleep(0.001)
    time.sleep(rng.uniform(0.0, longest))
    if (code := ended(child)) is not None:
        assert code == 0, f"the job failed with {code}"
        return None
    signum = rng.choice(SIGNALS)
    began = time.monotonic()
    os.kill(child, signum)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 128 + signum:  # or else train() had returned: then the signal is not its own
        newest = diary.read(folder / "diary.txt")[-1]
        assert newest[:3] == last[:3], f"the job ended with {code} after {signum.name}"
        assert code in (0, -signum), f"the job ended with {code} after {signum.name}"
        return None
    return signum, time.monotonic() - began


def campaign(root: Path, job: Any, *, signals: int, seed: int, sleep: float) -> dict[str, Any]:
    """Send `signals` signals, in as many runs as needed; return the counts."""
    rng = random.Random(seed)
    reference = root / "reference"
    reference.mkdir()
    child = start(job, reference, root / "cache", sleep)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, _log(reference)
    wanted = (reference / "report.json").read_text()
    batches = diary.read(reference / "diary.txt")
    longest = sum(line.seconds for line in batches) / 3
    figures: dict[str, Any] = {
        **{"signals": 0, "SIGTERMs": 0, "steps lost": 0, "slowest exit in seconds": 0.0},
        **{"completed runs": 0, "identical runs": 0},
    }
    while figures["signals"] < signals or figures["completed runs"] == 0:
        folder = root / f"run{figures['completed runs']}"
        folder.mkdir()
        while True:
            child = start(job, folder, root / "cache", sleep)
            if figures["signals"] == signals:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, _log(folder)
                break
            try:
                told = signal_once(child, folder, rng, longest, batches[-1])
            except AssertionError as error:
                raise AssertionError(f"{error}\n{_log(folder)}") from None
            if told is None and (folder / "report.json").exists():
                break
            if told is None:
                continue
            figures["signals"] += 1
            figures["SIGTERMs"] += told[0] == signal.SIGTERM
            figures["slowest exit in seconds"] = max(figures["slowest exit in seconds"], told[1])
        done = diary.read(folder / "diary.txt")
        figures["steps lost"] += len(done) - len(batches)
        figures["completed runs"] += 1
        figures["identical runs"] += (folder / "report.json").read_text() == wanted
    return figures


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--door", choices=JOBS, default="medjax")
    parser.add_argument("--signals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--sleep", type=float, default=0.02, help="seconds added to each batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown = campaign(
            Path(folder),
            importlib.import_module(JOBS[arguments.door]),
            signals=arguments.signals,
            seed=arguments.seed,
            sleep=arguments.sleep,
        )
    print(json.dumps(shown, indent=1))
