"""Every part of the state is needed: without any one of them, the run ends differently."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import job
import numpy as np
import optax
import pytest
from breaking import At, DiedError, die

import medjax

Forget = Callable[[Any], Any]


def _nothing(value: Any) -> Any:
    return value


def _reset(name: str) -> Forget:
    def forget(state: Any) -> Any:
        if name == "key":
            return state.replace(key=jax.random.key(0))
        return state.replace(**{name: jax.tree.map(jnp.zeros_like, getattr(state, name))})

    return forget


def _reset_updates(state: Any) -> Any:
    return state.replace(losses=state.losses.replace(nb_updates=jnp.int32(0)))


def _reset_adam(name: str) -> Forget:
    def forget(state: Any) -> Any:
        def change(node: Any) -> Any:
            if isinstance(node, optax.ScaleByAdamState):
                zeros = jax.tree.map(jnp.zeros_like, getattr(node, name))
                return node._replace(**{name: zeros})
            return node

        is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
        changed = jax.tree.map(change, state.opt_state, is_leaf=is_adam)
        assert job.digest(changed) != job.digest(state.opt_state)
        return state.replace(opt_state=changed)

    return forget


def _progress(**values: Any) -> Forget:
    def forget(progress: dict) -> dict:
        changed = {**progress, **values}
        assert changed != progress
        return changed

    return forget


def _schedule(**values: Any) -> Forget:
    def forget(progress: dict) -> dict:
        assert {**progress["schedule"], **values} != progress["schedule"]
        return {**progress, "schedule": {**progress["schedule"], **values}}

    return forget


STATE = [
    "params",
    "collections",
    "key",
    "step",
    "batch_step",
    "gradients",
    "gradient_weight",
    "pending",
    "losses",
]
OF_STATE = {
    **{name: _reset(name) for name in STATE if name != "gradient_weight"},
    "losses.nb_updates": _reset_updates,
    **{f"adam.{name}": _reset_adam(name) for name in ("mu", "nu", "count")},
}
OF_PROGRESS = {
    "epoch": _progress(epoch=1),
    "batch": _progress(batch=0),
    "columns": _progress(columns={}),
    "history": _progress(history=[]),
    "callbacks": _progress(callbacks={}),
    "seed": _progress(seed=0),
    "data": _progress(data={}),
    "stop_reason": _progress(stop_reason="no reason"),
    "schedule.learning_rate": _schedule(learning_rate=job.DEFAULTS["learning_rate"]),
    "schedule.best": _schedule(best=float("inf")),
}


def _resumed(
    saved: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    of_state: Forget = _nothing,
    of_progress: Forget = _nothing,
    **settings: Any,
) -> dict[str, Any]:
    """Return the report of a run resumed without a part, or the error it ends with."""
    shutil.copytree(saved, out)
    find, load = medjax.CheckpointStore.find, medjax.CheckpointStore.load

    def find_less(self: Any, resume: Any) -> Any:
        checkpoint = find(self, resume)
        progress = checkpoint.record["progress"]
        assert (progress["epoch"], progress["batch"]) == (3, 3)
        return checkpoint._replace(record={**checkpoint.record, "progress": of_progress(progress)})

    def load_less(self: Any, checkpoint: Any, state: Any, shardings: Any) -> Any:
        state = load(self, checkpoint, state, shardings)
        assert int(state.pending) == 1
        return jax.device_put(of_state(state), shardings)

    monkeypatch.setattr(medjax.CheckpointStore, "find", find_less)
    monkeypatch.setattr(medjax.CheckpointStore, "load", load_less)
    # The seed is that of the checkpoint, or else drawn: then it may not be drawn right by luck.
    monkeypatch.setattr(secrets, "randbits", lambda bits: 4242)
    try:
        result = job.run(out, resume="auto", seed=None, **settings)
    except (medjax.CheckpointError, medjax.NonFiniteError) as error:
        return {"error": repr(error)}
    return job.report(result, out)


def test_a_complete_state_resumes_identically(saved, reference, tmp_path, monkeypatch):
    assert _resumed(saved, tmp_path / "out", monkeypatch) == reference


@pytest.mark.parametrize("name", OF_STATE)
def test_each_part_of_the_state_is_needed(name, saved, reference, tmp_path, monkeypatch):
    report = _resumed(saved, tmp_path / "out", monkeypatch, of_state=OF_STATE[name])
    assert report != reference


def test_what_waiting_gradients_weigh_is_needed_in_a_uniform_order(tmp_path, monkeypatch):
    settings: dict[str, Any] = {"options": {**job.EVERY_3, "length_window": 0}}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    expected = job.report(job.run(whole, **settings), whole)
    with pytest.raises(DiedError):
        job.run(cut, callback=At(3, 3, "train", die), **settings)
    assert _resumed(cut, tmp_path / "same", monkeypatch, **settings) == expected
    forget = _reset("gradient_weight")
    report = _resumed(cut, tmp_path / "out", monkeypatch, of_state=forget, **settings)
    assert report != expected


@pytest.mark.parametrize("name", OF_PROGRESS)
def test_each_part_of_the_progress_is_needed(name, saved, reference, tmp_path, monkeypatch):
    report = _resumed(saved, tmp_path / "out", monkeypatch, of_progress=OF_PROGRESS[name])
    assert report != reference


def test_every_part_is_covered():
    state = set(medjax.TrainState.__dataclass_fields__)
    # A state that has stopped_at is never saved, see test_resume.
    elsewhere = {"apply_fn", "tx", "opt_state", "skipped", "skipped_in_row", "stopped_at"}
    elsewhere |= {"learning_rate"}  # set again by what the schedule says
    assert state - elsewhere == set(STATE)
    from medjax.checkpoint.progress import Progress

    elsewhere = {"settings", "stopped_by", "ladders", "updates", "left_out", "skipped"}
    names = {name.split(".")[0] for name in OF_PROGRESS}
    # These matter only when settings change: see tests/loop/test_resume_settings.py.
    # The counts of updates and skipped batches are those of tests/loop/test_resume_updates.py.
    # Fitted ladders, which this job does not have, are those of tests/data/test_fitting.py.
    assert set(Progress._fields) - elsewhere <= names


@pytest.mark.parametrize("name", ["none", "skipped_in_row", "skipped"])
def test_the_counts_of_skipped_batches_are_restored(name, tmp_path, monkeypatch):
    """Two bad batches in a row are too many, even with a kill between them."""
    data = job.items(160)
    order = medjax.epoch_order(11, 1, len(data))
    for index in order[5 * 16 : 7 * 16]:
        data[index]["scale"] = np.nan
    out = tmp_path / "out"
    options = {
        "on_non_finite": "skip",
        "max_skipped": 1,
        "length_window": 0,
        "save_interval_steps": 1,
    }

    def run(**more: Any) -> Any:
        return job.run(out, data=data, options=options, nb_training_epochs=1, **more)

    with pytest.raises(DiedError):
        run(callback=At(1, 6, "train", die))
    original = medjax.CheckpointStore.load

    def load(self: Any, checkpoint: Any, state: Any, shardings: Any) -> Any:
        state = original(self, checkpoint, state, shardings)
        assert checkpoint.record["progress"]["batch"] == 6
        assert (int(state.skipped), int(state.skipped_in_row)) == (1, 1)
        if name != "none":
            state = state.replace(**{name: jnp.zeros_like(getattr(state, name))})
        return jax.device_put(state, shardings)

    monkeypatch.setattr(medjax.CheckpointStore, "load", load)
    if name == "skipped_in_row":
        assert int(run(resume="auto").state.skipped) == 2  # it was not noticed
        return
    with pytest.raises(medjax.NonFiniteError) as raised:
        run(resume="auto")
    assert (raised.value.epoch, raised.value.step) == (1, 6)
    assert sorted(raised.value.indices) == sorted(order[6 * 16 : 7 * 16].tolist())
