"""A process that ends or is interrupted during a save: the checkpoint is complete or absent."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import jax.numpy as jnp
import pytest
from stored import names, put, restored, run_script, same

import medjax
from medjax import CheckpointStore
from medjax.checkpoint import saver

EXITS = {
    "exception": ("raise ValueError('mine')", 1, "ValueError: mine"),
    "exit": ("sys.exit(7)", 7, ""),
    "interrupt": ("raise KeyboardInterrupt", None, "KeyboardInterrupt"),
    "end": ("", 0, ""),
}


@pytest.mark.parametrize("kind", EXITS)
def test_leaving_commits_the_save_in_flight(kind, tmp_path):
    statement, code, message = EXITS[kind]
    script = f"""
import sys
import time
import jax.numpy as jnp
import medjax

with medjax.CheckpointStore({str(tmp_path / "out")!r}, "run") as store:
    store.save(
        store.new_path(1), {{"w": jnp.arange(100_000.0)}}, {{"at": 1.0}}, metric=None,
        config={{}}, write_files=lambda folder: None,
    )
    {statement or "pass"}
"""
    done = run_script(script)
    assert code is None or done.returncode == code, done.stderr
    assert message in done.stderr
    at, state = restored(tmp_path / "out", state={"w": jnp.zeros(100_000)})
    assert at == 1.0
    assert same(state, {"w": jnp.arange(100_000.0)})


def test_an_interrupted_wait_can_be_repeated(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, "run")
    path = put(store, 1.0, block=False)
    thread = store._saver._thread
    join = thread.join

    def interrupted():
        thread.join = join
        raise KeyboardInterrupt

    monkeypatch.setattr(thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.wait()
    store.wait()
    assert medjax.last_checkpoint(tmp_path) == path


INTERRUPT = """
import os, signal, sys, threading, time
import jax.numpy as jnp
import medjax
from medjax.checkpoint import saver

# A process started in the background ignores Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
original = saver.save_arrays

def save_arrays(path, state):
    os.kill(os.getpid(), signal.SIGINT)  # the main thread is within `save`
    time.sleep(0.2)
    return original(path, state)

saver.save_arrays = save_arrays
with medjax.CheckpointStore(sys.argv[1], "run") as store:
    path = store.new_path(1)
    try:
        store.save(
            path, {"w": jnp.arange(100_000.0)}, {"at": 1.0}, metric=None, config={},
            write_files=lambda folder: None,
        )
    except KeyboardInterrupt:
        print(os.path.exists(path), flush=True)
        raise
"""


def test_ctrl_c_while_the_arrays_are_copied_commits_the_checkpoint(tmp_path):
    """Interrupting Orbax at this point would make the interpreter hang at its exit."""
    began = time.monotonic()
    done = run_script(INTERRUPT, tmp_path / "out")
    assert time.monotonic() - began < 60
    assert "KeyboardInterrupt" in done.stderr
    assert done.stdout == "False\n"
    at, state = restored(tmp_path / "out", state={"w": jnp.zeros(100_000)})
    assert at == 1.0
    assert same(state, {"w": jnp.arange(100_000.0)})


@pytest.fixture
def interruptible():
    """Make Ctrl-C interrupt, since a process started in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("when", ["before it starts", "when it has started"])
def test_ctrl_c_around_the_start_of_the_thread(when, tmp_path, monkeypatch):
    """The checkpoint is complete or absent, and KeyboardInterrupt is raised."""
    start = threading.Thread.start

    def interrupted(thread):
        if thread.name == "medjax-checkpoint":
            monkeypatch.setattr(threading.Thread, "start", start)
            if when == "when it has started":
                start(thread)
            raise KeyboardInterrupt
        start(thread)

    def train() -> None:
        with CheckpointStore(tmp_path, "run") as store:
            former.append(put(store, 1.0))
            monkeypatch.setattr(threading.Thread, "start", interrupted)
            put(store, 2.0)

    former: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        train()
    left = names(tmp_path)
    assert len(left) == 1
    assert left[0].startswith("checkpoint_")
    if when == "before it starts":
        assert left == [former[0].name]
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 3.0)


@pytest.mark.usefixtures("interruptible")
def test_a_save_that_was_given_up_is_not_begun_by_its_thread(tmp_path, monkeypatch):
    """The thread exists, but starts its work only after Ctrl-C has been handled."""
    write, late = saver.Saver._write, []

    def delayed(*args):
        late.append(args)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(saver.Saver, "_write", delayed)
    with CheckpointStore(tmp_path, "run") as store:
        with pytest.raises(KeyboardInterrupt):
            put(store, 1.0)
        assert names(tmp_path) == []
        (arguments,) = late
        write(*arguments)
        store.wait()
        assert names(tmp_path) == []


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_the_component_saves_leaves_the_previous_checkpoint(tmp_path):
    def interrupt(folder: Path) -> None:
        (folder / "half").write_text("half")
        signal.raise_signal(signal.SIGINT)

    with CheckpointStore(tmp_path, "run") as store:
        former = put(store, 1.0)
        with pytest.raises(KeyboardInterrupt):
            put(store, 2.0, write_files=interrupt)
        assert names(tmp_path) == [former.name]
        later = put(store, 3.0)
    assert names(tmp_path) == [later.name]
