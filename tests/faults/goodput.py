"""Measure the share of its time for which a repeatedly killed job trains:
``python tests/faults/goodput.py --every 20 --minutes 5``.

A process is started, SIGKILLed after `every` seconds and restarted immediately, as by a batch
system that requeues, until the time is up. The productive seconds are those of the batches of
training and evaluation, each counted once; the rest goes into starting, restoring, compiling,
saving, and repeating what a kill undid.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import diary
from kill import JOBS

import medjax

HERE, ROOT = Path(__file__).parent, Path(medjax.__file__).parents[1]


def measure(door: str, folder: Path, *, every: float, total: float, sleep: float) -> dict:
    """Return the figures of `total` seconds with a kill every `every` seconds."""
    command = [sys.executable, str(HERE / f"{JOBS[door]}.py"), str(folder / "out")]
    command += [str(folder / "report.json"), "--diary", str(folder / "diary.txt")]
    command += ["--sleep", str(sleep), "--epochs", "100000"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, ROOT / "interop"])),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    began, kills = time.monotonic(), 0
    while (left := began + total - time.monotonic()) > 0:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            code = process.wait(min(every, left))
            raise AssertionError(f"the job ended by itself with {code}")
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    elapsed = time.monotonic() - began
    done = diary.read(folder / "diary.txt", ("train", "eval"))
    counted = {line[:3]: line.seconds for line in done}
    return {
        "seconds": round(elapsed, 1),
        "kills": kills,
        "batches done": len(done),
        "batches done twice": len(done) - len(counted),
        "goodput": round(sum(counted.values()) / elapsed, 3),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--door", choices=JOBS, default="medjax")
    parser.add_argument("--every", type=float, default=20.0, help="seconds that a process lives")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--sleep", type=float, default=0.1, help="seconds added to each batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(
            arguments.door,
            Path(folder),
            every=arguments.every,
            total=60 * arguments.minutes,
            sleep=arguments.sleep,
        )
    print(json.dumps(figures, indent=1))
