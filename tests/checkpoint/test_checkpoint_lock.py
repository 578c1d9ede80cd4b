"""Only one run at a time writes to an output folder, and a killed run does not block others."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import jax
import pytest
from stored import names, put, restored

import medjax
from medjax import CheckpointError, CheckpointStore
from medjax.checkpoint import lock as lock_module
from medjax.checkpoint import store as store_module
from medjax.checkpoint.lock import LOCK, FolderLock


def test_a_second_store_is_refused_and_the_first_keeps_working(tmp_path):
    with CheckpointStore(tmp_path, "first") as store:
        put(store, 1.0, block=False)
        with (
            pytest.raises(CheckpointError, match=rf"in use by .*process {os.getpid()} on "),
            CheckpointStore(tmp_path, "second"),
        ):
            pass
        store.wait()
    assert sorted(path.name[:14] for path in tmp_path.iterdir()) == ["checkpoint_001"]
    with CheckpointStore(tmp_path, "second") as store:
        put(store, 2.0)
    assert restored(tmp_path)[0] == 2.0


def test_another_process_holds_it_until_it_is_killed(tmp_path):
    script = (
        "import pathlib, sys, time; from medjax.checkpoint.lock import FolderLock\n"
        "FolderLock(pathlib.Path(sys.argv[1])).acquire()\n"
        "print('held', flush=True); time.sleep(600)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(medjax.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    )
    try:
        assert process.stdout.readline() == b"held\n"
        with (
            pytest.raises(CheckpointError, match=f"process {process.pid} on "),
            CheckpointStore(tmp_path, "run"),
        ):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        process.communicate()
    assert (tmp_path / LOCK).exists()
    with CheckpointStore(tmp_path, "run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_only_one_process_ever_holds_the_lock(tmp_path):
    """Many threads take and release it concurrently; removing its file does not bypass it."""
    nb_holders, most, taken = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal nb_holders, most, taken
        for _ in range(150):
            mine = FolderLock(tmp_path)
            try:
                mine.acquire()
            except CheckpointError:
                continue
            with guard:
                nb_holders, taken = nb_holders + 1, taken + 1
                most = max(most, nb_holders)
            with guard:
                nb_holders -= 1
            mine.release()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert taken > 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock_module, "_lock", refuse)
    caplog.set_level(logging.WARNING, logger="medjax")
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 1.0)
    assert "cannot be locked (" in caplog.text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("when", ["before the save", "within the save"])
def test_nothing_is_written_to_a_replaced_folder(when, tmp_path):
    out = tmp_path / "out"

    def replace(folder: Path | None = None) -> None:
        shutil.rmtree(out)
        out.mkdir()
        if folder is not None:
            folder.mkdir()

    with CheckpointStore(out, "run") as store:
        put(store, 1.0)
        if when == "before the save":
            replace()
        with pytest.raises(CheckpointError, match="was deleted or replaced during the run"):
            put(store, 2.0, **({"write_files": replace} if when == "within the save" else {}))
        with CheckpointStore(out, "another") as other:
            put(other, 3.0)
    assert [name[:14] for name in names(out)] == ["checkpoint_003"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no open file")
def test_a_removed_lock_is_taken_again(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="medjax")
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 1.0)
        (tmp_path / LOCK).unlink()
        second = put(store, 2.0)
        assert f"{tmp_path / LOCK} was removed during the run" in caplog.text
        with pytest.raises(CheckpointError, match="in use by"), CheckpointStore(tmp_path, "b"):
            pass
        caplog.clear()
        put(store, 3.0, metric=1.0)
        assert caplog.text == ""
    assert not (tmp_path / LOCK).exists()
    assert second.name not in names(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no open file")
def test_a_removed_lock_that_another_run_has_taken(tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        first = put(store, 1.0)
        (tmp_path / LOCK).unlink()
        with (
            CheckpointStore(tmp_path, "another"),
            pytest.raises(CheckpointError, match="is in use by another run"),
        ):
            put(store, 2.0)
        put(store, 3.0)
    assert first.name not in names(tmp_path)


def _stand_in(kind: str, lock: Path, other: Path) -> None:
    if kind == "link":
        lock.symlink_to(other)
    elif kind == "dangling link":
        lock.symlink_to(other.with_name("not there"))
    elif kind == "hard link":
        os.link(other, lock)
    elif kind == "folder":
        lock.mkdir()
    elif kind == "pipe":
        os.mkfifo(lock)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(str(lock))
    else:
        lock.write_text(other.read_text())


STAND_INS = {
    "link": "is a symbolic link",
    "dangling link": "is a symbolic link",
    "hard link": "is a file with a second name",
    "folder": "is a folder",
    "pipe": "is a named pipe",
    "socket": "is a socket",
    "file": "is a file that medjax did not write",
}


@pytest.mark.skipif(sys.platform == "win32", reason="files of POSIX")
@pytest.mark.parametrize("kind", STAND_INS)
def test_other_files_at_the_path_of_the_lock_are_left_alone(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    out, other = Path("out"), tmp_path / "precious"
    out.mkdir()
    other.write_text("thesis")
    _stand_in(kind, out / LOCK, other)
    with (
        pytest.raises(CheckpointError, match=rf"\.lock {STAND_INS[kind]}.* remove it, or choose"),
        CheckpointStore(out, "run"),
    ):
        pass
    assert other.read_text() == "thesis"
    assert os.path.lexists(out / LOCK)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "precious"]


def test_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(CheckpointError, match=r"file cannot be written to .* another output_dir"),
        CheckpointStore(tmp_path / "file", "run"),
    ):
        pass


def test_the_first_process_locks_and_all_get_its_error(tmp_path, monkeypatch):
    messages = []

    def first_of(value):
        messages.append(value)
        return answer if jax.process_index() else value

    monkeypatch.setattr(store_module.distributed, "first_of", first_of)
    answer = ""
    with CheckpointStore(tmp_path, "run"):
        assert (tmp_path / LOCK).exists()
        monkeypatch.setattr(jax, "process_index", lambda: 1)
        with CheckpointStore(tmp_path, "run") as second:
            second._lock.confirm()
        answer = "in use by another"
        with (
            pytest.raises(CheckpointError, match="in use by another"),
            CheckpointStore(tmp_path, "run"),
        ):
            pass
        monkeypatch.setattr(jax, "process_index", lambda: 0)
        with pytest.raises(CheckpointError, match="in use by"), CheckpointStore(tmp_path, "run"):
            pass
    assert [bool(words) for words in messages] == [False, False, False, True]
