"""The checkpoint store: complete or absent, errors that are told, other folders left alone."""

from __future__ import annotations

import datetime
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import medjax
from medjax import CheckpointError, CheckpointStore, CorruptCheckpointError, MismatchError
from medjax.checkpoint import manifest
from medjax.checkpoint import store as store_module
from medjax.checkpoint.arrays import check_storable

CONFIG = {"learning_rate": 1e-5, "checkpoint_metric": "é"}


def tree(value: float = 1.0) -> dict:
    return {
        "params": {"w": jnp.full((3, 4), value), "half": jnp.full(5, value, jnp.bfloat16)},
        "key": jax.random.key(int(value)),
        "odd": jnp.array([np.nan, -0.0, np.inf, 1e-40], jnp.float32),
        "count": jnp.asarray(int(value), jnp.int32),
    }


def layout(state):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda _: here, state)


def put(store: CheckpointStore, value: float, metric: float | None = None, **more) -> Path:
    path = store.new_path(more.pop("epoch", int(value)))
    given = {
        "metric": metric,
        "config": CONFIG,
        "write_files": lambda folder: (folder / "own.txt").write_text(str(value)),
        "block": True,
    }
    store.save(path, more.pop("state", tree(value)), {"at": value}, **{**given, **more})
    return path


def restored(folder: Path, resume: str | Path = "auto", state: dict | None = None):
    """Return progress and arrays, None if there is nothing."""
    like = tree() if state is None else state
    with CheckpointStore(folder, "reader") as store:
        found = store.restore(resume, like, layout(like))
    if found is None:
        return None
    return found[1]["at"], found[0]


def same(a, b) -> bool:
    def raw(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        raw(x) == raw(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_round_trip(tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 3.0, 0.5)
        assert store.best == store.last == path
    at, state = restored(tmp_path)
    assert at == 3.0
    assert same(state, tree(3.0))
    assert yaml.safe_load((path / "trainer_config.yml").read_text("utf-8")) == CONFIG
    assert (path / "own.txt").read_text() == "3.0"
    assert names(tmp_path) == [path.name]


def test_nothing_there(tmp_path):
    assert restored(tmp_path / "new") is None
    assert medjax.best_checkpoint(tmp_path) is None
    assert medjax.last_checkpoint(tmp_path) is None


def test_the_arrays_are_copied_before_save_returns(tmp_path):
    state = {"w": jnp.arange(1000.0)}
    change = jax.jit(lambda s: {"w": s["w"] * 0 - 1}, donate_argnums=0)
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 1.0, state=state, block=False)
        for _ in range(10):
            state = change(state)
    _, found = restored(tmp_path, state={"w": jnp.zeros(1000)})
    assert same(found, {"w": jnp.arange(1000.0)})


# A crash at any point


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


# Leaving while a save is under way


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


# Names and neighbours


class FrozenClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 2, 3, 4, 5, 6, tzinfo=tz)


def test_saves_within_a_second_get_a_suffix(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.datetime, "datetime", FrozenClock)
    with CheckpointStore(tmp_path, "run") as store:
        first = put(store, 1.0, 0.1, epoch=1)
        assert first.name == "checkpoint_001_20310203T040506Z"
        seen = {first}
        for value in (2.0, 3.0, 4.0, 5.0):
            path = put(store, value, 0.5, epoch=1)
            assert path.name.startswith(first.name + "-")
            assert store.last == path
            assert set(store.folder.iterdir()) == {first, path}
            seen.add(path)
        assert store.best == first
    assert restored(tmp_path)[0] == 5.0


def test_retention_on_disk(tmp_path):
    with CheckpointStore(tmp_path, "run", minimize=False) as store:
        paths = [
            put(store, float(i), metric)
            for i, metric in enumerate([0.5, None, 0.9, float("nan"), 0.9, 0.1], start=1)
        ]
        assert (store.best, store.last) == (paths[2], paths[5])
    assert set(tmp_path.iterdir()) == {paths[2], paths[5]}
    assert medjax.best_checkpoint(tmp_path) == paths[2]


def test_keep_all(tmp_path):
    with CheckpointStore(tmp_path, "run", keep_all=True) as store:
        paths = {put(store, float(i), 1.0) for i in range(1, 5)}
    assert set(tmp_path.iterdir()) == paths


def test_what_is_not_of_this_run_is_left_alone(tmp_path):
    foreign = tmp_path / "checkpoint_001_20200101T000000Z"
    foreign.mkdir()
    (foreign / "optimizer.pt").write_bytes(b"medkit's")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "my_model").mkdir()
    with CheckpointStore(tmp_path, "other") as store:
        others = {put(store, 1.0, 0.3), put(store, 2.0, 0.5)}
    left = {foreign, tmp_path / "notes.txt", tmp_path / "my_model", *others}
    with CheckpointStore(tmp_path, "run") as store:
        for value in (3.0, 4.0, 5.0, 6.0):
            path = put(store, value, 0.0 - value)
        assert store.last == store.best == path
    assert set(tmp_path.iterdir()) == {*left, path}
    assert (foreign / "optimizer.pt").read_bytes() == b"medkit's"


def test_an_older_checkpoint_branches_off(tmp_path):
    with CheckpointStore(tmp_path, "first") as store:
        old, new = put(store, 1.0, 0.1), put(store, 2.0, 0.5)
    with CheckpointStore(tmp_path, "second") as store:
        store.restore(old, tree(), layout(tree()))
        assert store.run == "second"
        third = put(store, 3.0, 0.9)
    assert set(tmp_path.iterdir()) == {old, new, third}
    with CheckpointStore(tmp_path, "third") as store:
        store.restore(third, tree(), layout(tree()))
        assert store.run == "second"


# What may not be stored, and what does not fit


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, "'a.b'"),
        ({"a": {"b.c": jnp.ones(2)}, "a.b": {"c": jnp.ones(2)}}, "'a.b.c'"),
        ({"empty": jnp.ones((3, 0))}, r"\['empty'\] has no elements"),
    ],
)
def test_refused_leaves(state, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        check_storable(state)
    with CheckpointStore(tmp_path, "run") as store, pytest.raises(CheckpointError, match=said):
        put(store, 1.0, state=state)
    assert names(tmp_path) == []


def test_odd_names_come_back(tmp_path):
    odd = ["a b", "é", "a/b", "zarr.json", "c", "0", "~", "%2F", "d", "..", "CON"]
    state = {name: {"c": jnp.full(3, float(i))} for i, name in enumerate(odd)}
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 1.0, state=state)
    like = jax.tree.map(jnp.zeros_like, state)
    assert same(restored(tmp_path, state=like)[1], state)


def _changed(**leaves) -> dict:
    return {**tree(), **leaves}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            _changed(count=jnp.zeros(2, jnp.int32)),
            r"\['count'\].*found int32 of shape \(\), exp.*\(2,\)",
        ),
        (_changed(count=jnp.zeros((), jnp.float32)), r"found int32 of.*expected float32 of"),
        (
            _changed(more=jnp.zeros(1)),
            r"\['more'\]: found nothing, expected float32 of shape \(1,\)",
        ),
        ({"params": tree()["params"]}, r"3 leaves differ.*expected nothing"),
        (_changed(key=jax.random.key(0, impl="rbg")), r"\['key'\]: found key<fry>.*key<rbg>"),
    ],
)
def test_mismatch_names_leaf_found_and_expected(wanted, said, tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 1.0)
    for resume in ("auto", path):
        with pytest.raises(MismatchError, match=said):
            restored(tmp_path, resume, wanted)
    assert names(tmp_path) == [path.name]


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "FORMAT", 99)
        with CheckpointStore(tmp_path, "run") as store:
            path = put(store, 1.0)
    for resume in ("auto", path):
        with pytest.raises(MismatchError, match=r"format 99.*reads up to 1; install a newer"):
            restored(tmp_path, resume)
    assert names(tmp_path) == [path.name]


def test_progress_that_json_cannot_hold(tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        path = store.new_path(1)
        with pytest.raises(CheckpointError, match=r"object.*cannot be stored as JSON"):
            store.save(
                *(path, tree(), {"at": object()}),
                metric=None,
                config={},
                write_files=lambda folder: None,
            )
        assert names(tmp_path) == []


def test_a_component_that_cannot_save(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise ValueError("no tokenizer")

    with CheckpointStore(tmp_path, "run") as store:
        with pytest.raises(CheckpointError, match="no tokenizer"):
            put(store, 1.0, write_files=fail)
        assert names(tmp_path) == []


def test_a_record_is_plain_json(tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 1.0, float("nan"))
    record = json.loads((path / "training_state.json").read_text("utf-8"))
    assert record["spec"]["['params']['half']"] == [[5], "bfloat16"]
    assert record["versions"]["jax"] == jax.__version__


def test_corrupt_and_mismatch_are_checkpoint_errors():
    assert issubclass(CorruptCheckpointError, CheckpointError)
    assert issubclass(MismatchError, CheckpointError)
