"""Saves that fail: crashes at any point, full disks, and files that cannot be deleted."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from disk import remount, small_disk
from stored import names, put, restored, run_script, same, tree

import medjax
from medjax import CheckpointError, CheckpointStore
from medjax.checkpoint import manifest, saver
from medjax.checkpoint import store as store_module


class CrashError(BaseException):
    """Simulates the end of the process: nothing of ours catches it to clean up."""


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
        patch(store_module, "write_record", fail)
    elif step == "files":
        return {"write_files": fail}
    elif step == "arrays":
        patch(saver, "save_arrays", fail)
    elif step == "written":
        original = saver.save_arrays

        def save_arrays(path, state):
            original(path, state)()
            return fail

        patch(saver, "save_arrays", save_arrays)
    elif step == "manifest":
        patch(saver, "write_manifest", fail)
    elif step == "fsync":
        patch(manifest, "fsync", fail)
    elif step == "rename":
        patch(Path, "rename", fail)
    return {}


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_leaves_the_previous_checkpoint(step, tmp_path, monkeypatch):
    """The process ends there: whatever it leaves, the previous checkpoint remains the newest."""
    with CheckpointStore(tmp_path, "run") as store:
        former = put(store, 1.0, 0.5)
    with monkeypatch.context() as patched:
        # A dead process does not clean up.
        patched.setattr(store_module.shutil, "rmtree", lambda *_, **__: None)
        dying = CheckpointStore(tmp_path, "run")
        more = _break(step, patched, CrashError())
        with pytest.raises((CrashError, CheckpointError)):
            put(dying, 2.0, 0.1, **more)
    assert len(names(tmp_path)) == (1 if step == "mkdir" else 2)
    assert medjax.last_checkpoint(tmp_path) == former
    assert medjax.best_checkpoint(tmp_path) == former
    at, state = restored(tmp_path)  # a new store removes what is left
    assert at == 1.0
    assert same(state, tree(1.0))
    assert names(tmp_path) == [former.name]


@pytest.mark.parametrize("step", STEPS)
def test_a_full_disk_is_reported_and_cleaned_up(step, tmp_path, monkeypatch):
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


def _raise_full(*_args):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_failed_save_is_reported_once_and_later(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "run")
    with monkeypatch.context() as patched:
        patched.setattr(saver, "write_manifest", _raise_full)
        put(store, 1.0, block=False)
        with pytest.raises(CheckpointError):
            store.new_path(2)
    store.wait()
    put(store, 2.0)
    assert restored(tmp_path)[0] == 2.0


def test_a_failed_save_does_not_mask_the_error(tmp_path, monkeypatch):
    monkeypatch.setattr(saver, "write_manifest", _raise_full)

    def train() -> None:
        with CheckpointStore(tmp_path, "run") as store:
            put(store, 1.0, block=False)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine") as raised:
        train()
    assert "could not be saved" in raised.value.__notes__[0]


def test_a_failed_save_is_reported_before_sys_exit(tmp_path, monkeypatch, caplog):
    """Python does not print the notes of a SystemExit, and exit code 0 would hide the failure."""
    monkeypatch.setattr(saver, "write_manifest", _raise_full)

    def leave() -> None:
        with CheckpointStore(tmp_path, "run") as store:
            put(store, 1.0, block=False)
            sys.exit(0)

    with pytest.raises(SystemExit) as raised:
        leave()
    assert raised.value.code == 0
    assert "could not be saved (OSError: [Errno 28] No space left" in caplog.text


def test_a_really_full_disk(tmp_path):
    with small_disk(tmp_path / "disk", 4) as disk:
        small = {"w": jnp.asarray(np.random.RandomState(0).rand(100_000), jnp.float32)}
        large = {"w": jnp.asarray(np.random.RandomState(1).rand(2_000_000), jnp.float32)}
        with CheckpointStore(disk / "out", "run") as store:
            put(store, 1.0, state=small)
            free = shutil.disk_usage(disk).free
            for value in (2.0, 3.0):  # each failure is reported and leaves nothing on the disk
                with pytest.raises(CheckpointError, match="could not be saved") as raised:
                    put(store, value, state=large)
                said = str(raised.value)
                assert str(disk / "out" / "checkpoint_00") in said
                assert re.search(r"needs about 8\.0 MB; 3\.\d MB are free there", said), said
                assert said.endswith("free some space and resume")
                assert len(said) < 1000
                assert shutil.disk_usage(disk).free == free
            put(store, 4.0, state=small)
        assert [name[:14] for name in names(disk / "out")] == ["checkpoint_004"]
        at, state = restored(disk / "out", state=small)
        assert at == 4.0
        assert same(state, small)


def test_a_disk_that_became_read_only(tmp_path):
    with small_disk(tmp_path / "disk", 4) as disk:
        with CheckpointStore(disk / "out", "run") as store:
            former = put(store, 1.0)
        # The store is not opened: a disk cannot be remounted read-only while the file of a lock is
        # open, only become so through a fault.
        remount(disk, "ro")
        with pytest.raises(CheckpointError, match="Read-only file system") as raised:
            put(store, 2.0)
        assert str(disk / "out" / "checkpoint_002") in str(raised.value)
        assert "MB are free there" not in str(raised.value)
        assert "fix the cause and resume" in str(raised.value)
        with (
            pytest.raises(CheckpointError, match=r"cannot be written to .*Read-only"),
            CheckpointStore(disk / "out", "another"),
        ):
            pass
        remount(disk, "rw")
        assert restored(disk / "out")[0] == 1.0
        assert names(disk / "out") == [former.name]


FILE_LIMIT = """
import resource, sys
import jax.numpy as jnp
import numpy as np
from medjax import CheckpointError, CheckpointStore

def put(store, value, size):
    state = {"w": jnp.asarray(np.random.RandomState(0).rand(size), jnp.float32)}
    store.save(
        store.new_path(value), state, {"at": float(value)}, metric=None, config={},
        write_files=lambda folder: None, block=True,
    )

soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
with CheckpointStore(sys.argv[1], "run") as store:
    put(store, 1, 10_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    for value in (2, 3):
        try:
            put(store, value, 1_000_000)
        except CheckpointError as error:
            print(len(list(store.folder.iterdir())), str(error).replace("\\n", " "))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a limit of POSIX")
def test_a_disk_that_takes_no_large_files(tmp_path):
    """The same as a full disk, for users who are not allowed to mount one."""
    done = run_script(FILE_LIMIT, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stdout
    for line in lines:
        assert line.startswith("2 the checkpoint ")  # the previous one and the lock
        assert "needs about 4.0 MB" in line
        assert "MB are free there" in line
    assert restored(tmp_path / "out", state={"w": jnp.zeros(10_000)})[0] == 1.0


def test_a_folder_deleted_during_a_save(tmp_path):
    with CheckpointStore(tmp_path / "out", "run") as store:
        put(store, 1.0)
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(CheckpointError, match="could not be saved"):
            put(store, 2.0)


@pytest.mark.parametrize("step", ["rename", "rmtree", "list"])
def test_a_superseded_checkpoint_that_cannot_be_deleted(step, tmp_path, monkeypatch, caplog):
    """The new one is still complete; the old one is deleted at a later save."""
    caplog.set_level(logging.WARNING, logger="medjax")
    original = Path.rename

    def rename(self, target):
        if self.name.startswith("checkpoint_001"):
            _raise_denied()
        return original(self, target)

    with CheckpointStore(tmp_path, "run") as store:
        former = put(store, 1.0)
        with monkeypatch.context() as patched:
            if step == "rename":
                patched.setattr(Path, "rename", rename)
            elif step == "rmtree":
                patched.setattr(store_module.shutil, "rmtree", _raise_denied)
            else:
                patched.setattr(store, "entries", _raise_denied)
            second = put(store, 2.0)
        assert "Cannot delete" in caplog.text
        assert "Permission denied" in caplog.text
        assert store.last == second
        left = former.name if step != "rmtree" else f".deleting-{former.name}"
        assert names(tmp_path) == sorted([left, second.name])
        third = put(store, 3.0)
        assert names(tmp_path)[-1] == third.name
    assert restored(tmp_path)[0] == 3.0
    assert names(tmp_path) == [third.name]


def _raise_denied(*_args, **_kwargs):
    raise OSError(errno.EACCES, os.strerror(errno.EACCES))
