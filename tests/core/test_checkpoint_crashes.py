"""A save that does not end: crashes at any point, full disks, leaving meanwhile."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from stored import names, put, restored, same, tree

import medjax
from medjax import CheckpointError, CheckpointStore
from medjax.checkpoint import manifest
from medjax.checkpoint import store as store_module


class CrashError(BaseException):
    """Stands for the end of the process: nothing of ours catches it to tidy up."""


STEPS = ["mkdir", "config", "record", "files", "arrays", "written", "manifest", "fsync", "rename"]


def _break(step: str, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> dict:
    """Make one step of a save raise; return arguments for `put`."""

    def fail(*_args, **_kwargs):
        raise error

    patch = monkeypatch.setattr
    if step == "mkdir":
        patch(Path, "mkdir", fail)
    elif step == "config":
        patch(store_module.yaml, "safe_dump", fail)
    elif step == "record":
        patch(store_module.json, "dumps", fail)
    elif step == "files":
        return {"write_files": fail}
    elif step == "arrays":
        patch(store_module, "save_arrays", fail)
    elif step == "written":
        original = store_module.save_arrays

        def save_arrays(path, state):
            original(path, state)()
            return fail

        patch(store_module, "save_arrays", save_arrays)
    elif step == "manifest":
        patch(store_module, "write_manifest", fail)
    elif step == "fsync":
        patch(manifest, "fsync", fail)
    elif step == "rename":
        patch(Path, "rename", fail)
    return {}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_leaves_the_former_checkpoint(step, tmp_path, monkeypatch):
    """The process ends there: whatever lies about, the former checkpoint is the newest."""
    with CheckpointStore(tmp_path, "run") as store:
        former = put(store, 1.0, 0.5)
    with monkeypatch.context() as patched:
        # A dead process does not tidy up.
        patched.setattr(store_module.shutil, "rmtree", lambda *_, **__: None)
        dying = CheckpointStore(tmp_path, "run")
        more = _break(step, patched, CrashError())
        with pytest.raises((CrashError, CheckpointError)):
            put(dying, 2.0, 0.1, **more)
    assert len(names(tmp_path)) == (1 if step == "mkdir" else 2)
    assert medjax.last_checkpoint(tmp_path) == former
    assert medjax.best_checkpoint(tmp_path) == former
    at, state = restored(tmp_path)  # a new store sweeps what is left
    assert at == 1.0
    assert same(state, tree(1.0))
    assert names(tmp_path) == [former.name]


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_is_told_and_tidied_up(step, tmp_path, monkeypatch):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with CheckpointStore(tmp_path, "run") as store:
        former = put(store, 1.0, 0.5)
        with monkeypatch.context() as patched:
            more = _break(step, patched, full)
            with pytest.raises(CheckpointError, match="No space left on device") as raised:
                put(store, 2.0, 0.1, **more)
        assert str(tmp_path / "checkpoint_002_") in str(raised.value)
        assert "MB are free" in str(raised.value)
        assert names(tmp_path) == [former.name]
        later = put(store, 3.0, 0.7)
    assert names(tmp_path) == sorted([former.name, later.name])
    assert restored(tmp_path)[0] == 3.0


def test_a_failed_save_is_told_once_and_later(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "run")
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "write_manifest", _raise_full)
        put(store, 1.0, block=False)
        with pytest.raises(CheckpointError):
            store.new_path(2)
    store.wait()
    put(store, 2.0)
    assert restored(tmp_path)[0] == 2.0


def _raise_full(*_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", str(disk)],
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("this machine does not allow mounting")
    try:
        small = {"w": jnp.asarray(np.random.RandomState(0).rand(100_000), jnp.float32)}
        large = {"w": jnp.asarray(np.random.RandomState(1).rand(2_000_000), jnp.float32)}
        with CheckpointStore(disk / "out", "run") as store:
            put(store, 1.0, state=small)
            for value in (2.0, 3.0):  # each of them is told, and leaves no more behind
                with pytest.raises(CheckpointError, match="could not be saved") as raised:
                    put(store, value, state=large)
                assert str(disk / "out") in str(raised.value)
            put(store, 4.0, state=small)
        assert [name[:14] for name in names(disk / "out")] == ["checkpoint_004"]
        at, state = restored(disk / "out", state=small)
        assert at == 4.0
        assert same(state, small)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_the_folder_was_deleted_meanwhile(tmp_path):
    with CheckpointStore(tmp_path / "out", "run") as store:
        put(store, 1.0)
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(CheckpointError, match="could not be saved"):
            put(store, 2.0)


EXITS = {
    "exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "exit": ("sys.exit(7)", 7, ""),
    "interrupt": ("raise KeyboardInterrupt", None, "KeyboardInterrupt"),
    "end": ("", 0, ""),
}


@pytest.mark.parametrize("kind", EXITS)
def test_leaving_commits_the_save_in_flight(kind, tmp_path):
    statement, code, said = EXITS[kind]
    script = f"""
import sys
import jax.numpy as jnp
import medjax

with medjax.CheckpointStore({str(tmp_path / "out")!r}, "run") as store:
    store.save(
        store.new_path(1), {{"w": jnp.arange(100_000.0)}}, {{"at": 1.0}}, metric=None,
        config={{}}, write_files=lambda folder: None,
    )
    {statement or "pass"}
"""
    environment = os.environ | {
        "PYTHONPATH": str(Path(medjax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert code is None or done.returncode == code, done.stderr
    assert said in done.stderr
    at, state = restored(tmp_path / "out", state={"w": jnp.zeros(100_000)})
    assert at == 1.0
    assert same(state, {"w": jnp.arange(100_000.0)})


def test_a_failed_save_does_not_mask_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "write_manifest", _raise_full)

    def train() -> None:
        with CheckpointStore(tmp_path, "run") as store:
            put(store, 1.0, block=False)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        train()
    assert "could not be saved" in raised.value.__notes__[0]


def test_an_interrupted_wait_can_be_repeated(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "run")
    path = put(store, 1.0, block=False)
    thread = store._thread
    join = thread.join

    def interrupted():
        thread.join = join
        raise KeyboardInterrupt

    monkeypatch.setattr(thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.wait()
    store.wait()
    assert medjax.last_checkpoint(tmp_path) == path
