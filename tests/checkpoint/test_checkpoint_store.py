"""The checkpoint store: a checkpoint is complete or absent, errors are reported."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from stored import CONFIG, layout, names, put, restored, same, tree

import medjax
from medjax import CheckpointError, CheckpointStore, CorruptCheckpointError, MismatchError
from medjax.checkpoint import space
from medjax.checkpoint import store as store_module
from medjax.checkpoint.arrays import ARRAYS, check_storable

KEY = jax.random.key(0)


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


def test_an_empty_folder(tmp_path):
    assert restored(tmp_path / "new") is None
    assert medjax.best_checkpoint(tmp_path) is None
    assert medjax.last_checkpoint(tmp_path) is None


def test_arrays_may_be_changed_as_soon_as_save_returns(tmp_path):
    on_device, on_host = jnp.arange(4e6), np.arange(4e6, dtype=np.float32)
    change = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    change(jnp.zeros_like(on_device))  # compiled beforehand, to come while they are written
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 1.0, state={"device": on_device, "host": on_host}, block=False)
        on_host[:] = -1
        for _ in range(10):
            on_device = change(on_device)
    zeros = jnp.zeros(4_000_000)
    _, stored = restored(tmp_path, state={"device": zeros, "host": zeros})
    assert same(stored, dict.fromkeys(("device", "host"), jnp.arange(4e6)))


def test_a_checkpoint_is_as_large_as_its_arrays(tmp_path):
    """Compressing takes memory and time, so it would slow down the steps that run meanwhile."""
    zeros = {"w": jnp.zeros(100_000)}
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 1.0, state=zeros)
    assert space.bytes_in(path / ARRAYS) >= zeros["w"].nbytes


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
            assert names(store.folder) == sorted([first.name, path.name])
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


def test_checkpoints_of_other_runs_are_left_alone(tmp_path):
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


# What must not be stored, and what does not fit


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a.b": jnp.ones(2), "a": {"b": jnp.ones(2)}}, "'a.b'"),
        ({"a": {"b.c": jnp.ones(2)}, "a.b": {"c": jnp.ones(2)}}, "'a.b.c'"),
    ],
)
def test_refused_leaves(state, said, tmp_path):
    with pytest.raises(CheckpointError, match=said):
        check_storable(state)
    with CheckpointStore(tmp_path, "run") as store, pytest.raises(CheckpointError, match=said):
        put(store, 1.0, state=state)
    assert names(tmp_path) == []


def test_arrays_without_elements_are_restored_from_their_shapes(tmp_path):
    empty = {"rows": jnp.ones((0, 3), jnp.bfloat16), "none": None, "keys": jax.random.split(KEY, 0)}
    state = {"first": empty, "last": (jnp.ones((2, 0), jnp.int32), jnp.arange(3))}
    with CheckpointStore(tmp_path, "run") as store:
        put(store, 1.0, state=state)
    assert same(found := restored(tmp_path, state=state)[1], state)
    assert found["first"]["rows"].dtype == jnp.bfloat16
    assert found["first"]["rows"].shape == (0, 3)
    grown = {**state, "first": {**empty, "rows": jnp.ones((1, 3), jnp.bfloat16)}}
    with pytest.raises(MismatchError, match=r"'rows'\]: found .* \(0, 3\), exp.*1, 3"):
        restored(tmp_path, state=grown)


def test_odd_names_are_restored(tmp_path):
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
def test_a_mismatch_names_the_leaf_with_both_shapes(wanted, said, tmp_path):
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
                path,
                tree(),
                {"at": object()},
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


@pytest.mark.parametrize(
    "name", ["checkpoint_099_20300101T000000Z", "checkpoint_000_20000101T000000Z"]
)
def test_a_copy_that_somebody_made_is_never_deleted_nor_preferred(name, tmp_path):
    with CheckpointStore(tmp_path, "run") as store:
        first = put(store, 1.0, metric=0.1)
        copy = Path(shutil.copytree(first, tmp_path / name))
        assert store.best == store.last == first == medjax.last_checkpoint(tmp_path)
        put(store, 2.0, metric=0.5)
        third = put(store, 3.0, metric=0.05)
        fourth = put(store, 4.0, metric=0.9)
        assert store.best == third
    assert names(tmp_path) == sorted([copy.name, third.name, fourth.name])
    assert restored(tmp_path, copy)[0] == 1.0
    shutil.copytree(fourth, tmp_path / "checkpoint_098_20300101T000000Z")
    with CheckpointStore(tmp_path, "reader") as store:
        store.restore("auto", tree(), layout(tree()))
        assert store.resumed == fourth
        assert store.run == "run"
        fifth = put(store, 5.0, metric=0.01)
    kept = [copy.name, "checkpoint_098_20300101T000000Z", fifth.name]
    assert names(tmp_path) == sorted(kept)


def test_a_hidden_folder_that_is_not_ours_is_not_deleted(tmp_path):
    (tmp_path / ".saving-mine").mkdir()
    (tmp_path / ".saving-checkpoint_001_20300101T000000Z").mkdir()
    with CheckpointStore(tmp_path, "run"):
        pass
    assert names(tmp_path) == [".saving-mine"]


@pytest.mark.parametrize(
    "name", ["manifest.json", "training_state.json", "trainer_config.yml", "training_state/w.bin"]
)
def test_a_component_may_not_write_what_the_store_writes(tmp_path, name):
    def write_files(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")

    with CheckpointStore(tmp_path, "run") as store:
        sound = put(store, 1.0)
        with pytest.raises(CheckpointError, match=f"has written '{name.partition('/')[0]}'"):
            put(store, 2.0, write_files=write_files)
        assert names(tmp_path) == [sound.name]
        last = put(store, 3.0)
    assert names(tmp_path) == sorted([last.name])
    at, _ = restored(tmp_path)
    assert at == 3.0
