"""SIGKILL one or both of two processes that train together, at random moments, also during a save;
restart both until they complete; compare them with an uninterrupted pair:
``python tests/faults/kill_pair.py --kills 30 --seed 3``. The rounds are those of kill.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import jax
import job
import kill

import medjax

MANY = 6  # saves that succeed before a kill; start-up is long compared with a complete run
BOTH_END = 60.0  # seconds in which the second process is gone after the first


def start(folder: Path, cache: Path, sleep: float) -> list[int]:
    """Fork two processes that train into `folder`; return their ids."""
    with socket.create_server(("localhost", 0)) as free:
        address = f"localhost:{free.getsockname()[1]}"
    return [_fork(folder, cache, sleep, address, number) for number in (0, 1)]


def _fork(folder: Path, cache: Path, sleep: float, address: str, number: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        log = os.open(folder / f"log{number}.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        kill.use_cpu(cache)
        medjax.initialize_distributed(address, 2, number, timeout=60)
        report = job.complete(folder / "out", sleep=sleep)
        if number == 0:
            (folder / "report.json").write_text(json.dumps(report))
        jax.distributed.shutdown()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def finish(children: list[int]) -> list[int]:
    """Wait for processes and return their exit statuses; those that hang are killed."""
    codes: dict[int, int] = {}
    deadline = time.monotonic() + 10 * BOTH_END
    while len(codes) < len(children):
        for child in set(children) - set(codes):
            if (code := kill.ended(child)) is not None:
                codes[child] = code
                deadline = min(deadline, time.monotonic() + BOTH_END)
        if time.monotonic() > deadline:
            for child in set(children) - set(codes):
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                codes[child] = -signal.SIGKILL
        time.sleep(0.005)
    return [codes[child] for child in children]


def let_it_save(child: int, out: Path, nb_saves: int) -> None:
    """Wait until a process has begun some saves, or ended."""
    seen: set[str] = set()
    while len(seen) < nb_saves:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        if out.is_dir():
            seen.add(kill.newest(out))
        time.sleep(0.001)


def kill_once(children: list[int], out: Path, rng: random.Random, typical: float) -> str | None:
    """Kill at a moment of a random kind; return the kind, None if the pair completed before.

    Half of the time both are killed together, otherwise one of them and soon after the other.
    """
    kind = rng.choice(kill.KINDS)
    if kind != "start":
        let_it_save(children[0], out, rng.randint(0, MANY))
    if not kill.wait_for_moment(children[0], out, kind, rng, typical):
        codes = finish(children)
        assert codes == [0, 0], f"the pair ended with {codes}"
        return None
    victims = rng.sample(children, 2)
    later = rng.choice([0.0, rng.uniform(0.0, 1.0)])
    os.kill(victims[0], signal.SIGKILL)
    time.sleep(later)
    with contextlib.suppress(ProcessLookupError):
        os.kill(victims[1], signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return kind


def campaign(root: Path, *, kills: int, seed: int, per_run: int, sleep: float) -> dict[str, Any]:
    """Kill `kills` times, in as many runs as needed; return the counts."""
    rng = random.Random(seed)
    reference = root / "reference"
    reference.mkdir()
    began = time.monotonic()
    assert finish(start(reference, root / "cache", sleep)) == [0, 0], logs(reference)
    typical = (time.monotonic() - began) / 4
    wanted = (reference / "report.json").read_text()
    figures: dict[str, Any] = dict.fromkeys(
        (
            "kills",
            "kills that left an unfinished folder",
            "kills before the first checkpoint",
            "completed runs",
            "identical runs",
        ),
        0,
    )
    while figures["kills"] < kills:
        folder = root / f"run{figures['completed runs']}"
        folder.mkdir()
        left = min(rng.randint(1, 2 * per_run - 1), kills - figures["kills"])
        while True:
            before = kill.unfinished(folder / "out")
            children = start(folder, root / "cache", sleep)
            if not left:
                codes = finish(children)
                assert codes == [0, 0], f"the pair ended with {codes}\n{logs(folder)}"
                break
            if kill_once(children, folder / "out", rng, typical) is None:
                break
            left -= 1
            figures["kills"] += 1
            kill.count_folders(folder / "out", before, figures)
        figures["completed runs"] += 1
        same = (folder / "report.json").read_text() == wanted
        figures["identical runs"] += same
        if not same:
            print("DIFFERS", (folder / "report.json").read_text(), wanted, file=sys.stderr)
        shutil.rmtree(folder)
    return figures


def logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob("log*.txt")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--per-run", type=int, default=4, help="mean number of kills of a run")
    parser.add_argument("--sleep", type=float, default=0.01, help="seconds added to each batch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown = campaign(
            Path(folder),
            kills=arguments.kills,
            seed=arguments.seed,
            per_run=arguments.per_run,
            sleep=arguments.sleep,
        )
    print(json.dumps(shown, indent=1))
