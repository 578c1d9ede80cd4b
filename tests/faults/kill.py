"""SIGKILL a training job at random moments, resume it until it completes, and compare it with an
uninterrupted run: ``python tests/faults/kill.py --kills 100 --seed 3``. The job is that of `job`,
or with ``--door medjax_torch`` that of `torch_job`.

This process imports medjax but never starts JAX's backend, so each round is a fork, which starts
immediately. There are three kinds of kill: at a random time after the start of the process (during
start-up, restoring or compilation), at a random time after training has continued, and just after
a save or a deletion has been seen to begin.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import jax
from diary import Diary
from jax._src import xla_bridge

JOBS = {"medjax": "job", "medjax_torch": "torch_job"}
KINDS = ("start", "training", "save", "save")
UNFINISHED = (".saving-", ".deleting-")


def start(job: Any, folder: Path, cache: Path, sleep: float) -> int:
    """Fork a process that trains into `folder` until it completes; return its id.

    The report is written once it is complete, every training batch as soon as it is done.
    """
    assert not xla_bridge.backends_are_initialized()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        use_cpu(cache)
        diary = Diary(folder / "diary.txt")
        report = job.complete(folder / "out", callback=diary, sleep=sleep)
        (folder / "report.json").write_text(json.dumps(report))
        code = 0
    except SystemExit as asked:
        code = int(asked.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def use_cpu(cache: Path) -> None:
    """Let a forked process compute on the CPU with a compilation cache for all rounds."""
    os.environ["JAX_PLATFORMS"] = "cpu"
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def ended(child: int) -> int | None:
    """Return the exit status of a process, or None while it runs."""
    done, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def unfinished(out: Path) -> set[str]:
    """Return the names in a folder that are not complete checkpoints."""
    if not out.is_dir():
        return set()
    return {path.name for path in out.iterdir() if path.name.startswith(UNFINISHED)}


def newest(out: Path) -> str:
    """Return the name of the newest folder, which changes when training continues."""
    names = [path.name.removeprefix(UNFINISHED[0]) for path in out.glob("*")]
    return max((name[11:] for name in names), default="")


def kill_once(child: int, out: Path, rng: random.Random, typical: float) -> str | None:
    """Kill at a moment of a random kind; return the kind, or None if the run completed before."""
    kind = rng.choice(KINDS)
    if not wait_for_moment(child, out, kind, rng, typical):
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code == 0, f"the job failed with {code}"
        return None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return kind


def wait_for_moment(child: int, out: Path, kind: str, rng: random.Random, typical: float) -> bool:
    """Return whether a moment of this kind came before the process ended."""
    began, before = time.monotonic(), unfinished(out)
    name = newest(out) if out.is_dir() else ""
    deadline = began + rng.uniform(0.0, typical)
    armed = kind == "start"
    while True:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        moment = time.monotonic()
        if not armed and kind == "training" and out.is_dir() and newest(out) != name:
            armed, deadline = True, moment + rng.uniform(0.0, typical)
        if not armed and kind == "save" and unfinished(out) - before:
            armed, deadline = True, moment + rng.uniform(0.0, 0.12)
        if armed and moment >= deadline:
            return True
        time.sleep(0.001)


def campaign(
    root: Path, job: Any, *, kills: int, seed: int, per_run: int, sleep: float
) -> dict[str, Any]:
    """Kill `kills` times, in as many runs as needed; return the counts."""
    rng = random.Random(seed)
    reference = root / "reference"
    reference.mkdir()
    began = time.monotonic()
    child = start(job, reference, root / "cache", sleep)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, _log(reference)
    typical = (time.monotonic() - began) / 4
    wanted = (reference / "report.json").read_text()
    figures: dict[str, Any] = {
        "kills": 0,
        "kills that left an unfinished folder": 0,
        "kills before the first checkpoint": 0,
        "completed runs": 0,
        "identical runs": 0,
    }
    while figures["kills"] < kills:
        folder = root / f"run{figures['completed runs']}"
        folder.mkdir()
        left = min(rng.randint(1, 2 * per_run - 1), kills - figures["kills"])
        while True:
            before = unfinished(folder / "out")
            child = start(job, folder, root / "cache", sleep)
            try:
                if left:
                    killed = kill_once(child, folder / "out", rng, typical)
                else:
                    killed = None
                    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            except AssertionError as error:
                raise AssertionError(f"{error}\n{_log(folder)}") from None
            if killed is None:
                break
            left -= 1
            figures["kills"] += 1
            count_folders(folder / "out", before, figures)
        figures["completed runs"] += 1
        same = (folder / "report.json").read_text() == wanted
        figures["identical runs"] += same
        if not same:
            print("DIFFERS", (folder / "report.json").read_text(), wanted, file=sys.stderr)
        shutil.rmtree(folder)
    return figures


def count_folders(out: Path, before: set[str], figures: dict[str, Any]) -> None:
    """Count what a kill left in the output folder."""
    figures["kills that left an unfinished folder"] += bool(unfinished(out) - before)
    figures["kills before the first checkpoint"] += not list(out.glob("checkpoint_*"))


def _log(folder: Path) -> str:
    return (folder / "log.txt").read_text()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--door", choices=JOBS, default="medjax")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--per-run", type=int, default=6, help="mean number of kills of a run")
    parser.add_argument("--sleep", type=float, default=0.01, help="seconds added to each batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown = campaign(
            Path(folder),
            importlib.import_module(JOBS[arguments.door]),
            kills=arguments.kills,
            seed=arguments.seed,
            per_run=arguments.per_run,
            sleep=arguments.sleep,
        )
    print(json.dumps(shown, indent=1))
