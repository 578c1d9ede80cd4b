"""Items that raise and workers that die, hang or get a signal are named; the run can be resumed."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import diary
import job
import pytest
import torch_job

import medjax
from medjax import ItemError, WorkerError

HERE, ROOT = Path(__file__).parent, Path(medjax.__file__).parents[1]


class Broken:
    """A dataset with an item that raises until it is fixed."""

    def __init__(self, items: list, index: int) -> None:
        self.items, self.index = items, index

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        if index == self.index:
            raise OSError(5, "Input/output error")
        return self.items[index]


def test_an_item_that_raises_is_named_and_the_run_continues_once_it_is_fixed(tmp_path, reference):
    out = tmp_path / "out"
    broken = int(medjax.epoch_order(11, 1, job.NB_ITEMS)[-1])  # read in the last window
    with pytest.raises(ItemError, match=rf"item {broken} of the dataset .*OSError.* then resume"):
        job.run(out, data=Broken(job.items(), broken), options=job.EVERY_3)
    assert medjax.last_checkpoint(out) is not None
    assert job.report(job.run(out, resume="auto", options=job.EVERY_3), out) == reference


def test_an_item_that_raises_in_the_drop_in(tmp_path):
    out = tmp_path / "out"
    broken = int(medjax.epoch_order(11, 1, torch_job.NB_ITEMS)[-1])
    trainer = torch_job.make(out, data=Broken(torch_job.items(), broken), options=job.EVERY_3)
    with pytest.raises(ItemError, match=rf"item {broken} of the dataset .*OSError.* then resume"):
        trainer.train()
    assert medjax.last_checkpoint(out) is not None
    assert torch_job.complete(out) == torch_job.complete(tmp_path / "whole")


def fails_once(folder: Path, how: str, item: dict, *, rng=None) -> dict:
    """Preprocess as the job does; if the file exists, die or hang at an item."""
    if (folder / "armed").exists() and item["tokens"] == job.items()[37]["tokens"]:
        if how == "dies":
            os._exit(3)
        time.sleep(600)
    return job.preprocess(item, rng=rng)


@pytest.mark.parametrize(
    ("how", "message"),
    [("dies", "a worker process died"), ("hangs", "returned no example for 3 s")],
)
def test_a_worker_that_fails_is_named_and_the_run_continues(how, message, tmp_path):
    out = tmp_path / "out"
    parts = job.component()
    parts = parts._replace(preprocess=functools.partial(fails_once, tmp_path, how))

    class Arm(medjax.TrainerCallback):
        def on_epoch_end(self) -> None:
            (tmp_path / "armed").touch()

    options = {"worker_timeout": 3.0, "length_window": 0}
    more = {"parts": parts, "options": options, "nb_training_epochs": 2}
    began = time.monotonic()
    with pytest.raises(WorkerError, match=rf"{message}.* items \[.*\b37\b"):
        job.run(out, callback=Arm(), dataloader_nb_workers=1, **more)
    assert time.monotonic() - began < 60
    assert multiprocessing.active_children() == []
    (tmp_path / "armed").unlink()
    resumed = job.run(out, resume="auto", **more)
    uninterrupted = job.run(tmp_path / "whole", **more)
    assert job.report(resumed, out) == job.report(uninterrupted, tmp_path / "whole")


# What comes from outside: the processes of a job as a batch system sees them.

DOORS = pytest.mark.parametrize(
    "door", ["medjax", pytest.param("medjax_torch", marks=pytest.mark.slow)]
)


class Job:
    """A training process with two workers, all in a process group of their own."""

    def __init__(self, door: str, folder: Path) -> None:
        self.out, self.diary = folder / "out", folder / "diary.txt"
        self.errors = folder / "stderr.txt"  # no pipe: one that nobody reads fills up, and blocks
        command = [sys.executable, str(HERE / "worker_job.py"), door, str(self.out)]
        paths = os.pathsep.join(map(str, [ROOT, ROOT / "interop"]))
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*command, str(self.diary)],
                env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
                stderr=errors,
                start_new_session=True,
            )

    def wait_for_batches(self, count: int) -> None:
        deadline = time.monotonic() + 120
        while len(diary.read(self.diary)) < count:
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def wait_for_the_last_of_the_group(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while _is_there(self.process.pid):
            assert time.monotonic() < deadline, "a process was left behind"
            time.sleep(0.05)

    def end(self) -> None:
        if _is_there(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@DOORS
def test_a_signal_to_all_processes_of_a_job_loses_no_step(door, tmp_path):
    """As sent by SLURM and systemd: the workers get it too, and the current batch needs them."""
    run = Job(door, tmp_path)
    try:
        run.wait_for_batches(5)
        os.killpg(run.process.pid, signal.SIGTERM)
        assert run.process.wait(30) == 143, run.errors.read_text()
        run.wait_for_the_last_of_the_group(20)
    finally:
        run.end()
    done = diary.read(run.diary)[-1]
    record = json.loads((medjax.last_checkpoint(run.out) / "training_state.json").read_text())
    progress = record["progress"]
    assert (progress["epoch"], progress["batch"]) == (done.epoch, done.batch + 1)


@DOORS
def test_a_killed_trainer_leaves_no_worker(door, tmp_path):
    run = Job(door, tmp_path)
    try:
        run.wait_for_batches(5)
        run.process.kill()
        run.process.wait()
        run.wait_for_the_last_of_the_group(20)
    finally:
        run.end()
