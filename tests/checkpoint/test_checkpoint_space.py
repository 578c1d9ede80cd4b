"""Before it trains, a run checks that there is disk space for its checkpoints."""

import errno
import logging
import math
import shutil
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stored import names, put
from tiny import config, mlp, points, start_state

import medjax
from medjax import CheckpointError, CheckpointStore, Options, TrainerCallback
from medjax.checkpoint import space
from medjax.loop.plan import Plan

Usage = namedtuple("Usage", "total used free")
TRAIN, EVAL = points(30), points(5, seed=3)
STATE = sum(leaf.nbytes for leaf in jax.tree.leaves(start_state(mlp(), is_grouped=True)))
WEIGHTS = sum(leaf.nbytes for leaf in jax.tree.leaves(start_state(mlp()).params))
ONE = STATE + WEIGHTS


class Saves(TrainerCallback):
    """Counts the epochs begun and the checkpoints saved."""

    def __init__(self):
        self.begun, self.saved = 0, 0

    def on_train_begin(self):
        self.begun += 1

    def on_save(self):
        self.saved += 1


def run(folder, callback=(), *, evaluated=EVAL, resume=None, options=None, **fields):
    return medjax.train(
        mlp(),
        config(folder, **fields),
        TRAIN,
        evaluated,
        callback=callback,
        options=options,
        resume=resume,
    )


@pytest.fixture
def disk(monkeypatch):
    """Return a function that sets the number of free bytes."""
    return lambda free, total=10**9: monkeypatch.setattr(
        space.shutil, "disk_usage", lambda folder: Usage(total, 0, free)
    )


def test_the_sum_of_all_leaves():
    tree = {"a": jnp.zeros((3, 4)), "b": jax.random.key(0), "c": jnp.zeros(5, jnp.bfloat16)}
    assert space.bytes_of(tree) == 48 + 8 + 10


@pytest.mark.parametrize(
    ("at_once", "evaluated", "fields", "options"),
    [
        (3, EVAL, {"nb_training_epochs": 5}, {}),  # the best, the last and the next
        (2, None, {"nb_training_epochs": 5}, {}),  # no best without an evaluation
        (2, EVAL, {"nb_training_epochs": 2}, {}),
        (1, EVAL, {"nb_training_epochs": 5, "checkpoint_period": 0}, {}),
        (3, EVAL, {"nb_training_epochs": 1}, {"save_interval_steps": 3}),
    ],
)
def test_room_is_needed_for_all_checkpoints_that_exist_at_once(
    tmp_path, disk, at_once, evaluated, fields, options
):
    callback = Saves()
    arguments = {"evaluated": evaluated, "options": Options(**options), **fields}
    disk(at_once * ONE - 1)
    with pytest.raises(CheckpointError, match=rf"has .* MB free.*and {at_once} will be stored"):
        run(tmp_path, callback, **arguments)
    assert (callback.begun, names(tmp_path)) == (0, [])
    disk(at_once * ONE)
    run(tmp_path, callback, **arguments)
    assert callback.begun == 1


def test_a_resumed_run_counts_existing_checkpoints(tmp_path, disk):
    run(tmp_path, nb_training_epochs=3, learning_rate=0.0)
    assert len(names(tmp_path)) == 2
    disk(ONE - 1)
    with pytest.raises(CheckpointError, match="and 1 will be stored there"):
        run(tmp_path, nb_training_epochs=6, resume="auto")
    run(tmp_path, nb_training_epochs=3, resume="auto")  # nothing is left to save
    disk(ONE)
    run(tmp_path, nb_training_epochs=6, resume="auto")


def test_if_all_are_kept_room_for_one_is_enough_to_start(tmp_path, disk, caplog):
    """The disk may be full before the run ends, so the user is warned."""
    caplog.set_level(logging.WARNING, logger="medjax")
    options = Options(keep_all_checkpoints=True)
    disk(4 * ONE - 1)
    run(tmp_path / "short", nb_training_epochs=4, options=options)
    assert "and 4 will be stored there at once" in caplog.text
    disk(ONE - 1)
    with pytest.raises(CheckpointError, match="and 4 will be stored there"):
        run(tmp_path / "none", nb_training_epochs=4, options=options)
    caplog.clear()
    disk(4 * ONE)
    run(tmp_path / "enough", nb_training_epochs=4, options=options)
    assert caplog.text == ""


def test_a_disk_of_unknown_size_is_no_obstacle(tmp_path, disk, monkeypatch):
    disk(0, total=0)
    run(tmp_path / "a")
    monkeypatch.setattr(space.shutil, "disk_usage", _refuse)
    run(tmp_path / "b")
    with CheckpointStore(tmp_path / "c", "run") as store:
        monkeypatch.setattr("medjax.checkpoint.saver.write_manifest", _refuse)
        with pytest.raises(CheckpointError, match="an unknown number of MB are free there"):
            put(store, 1.0)


def _refuse(*_args):
    raise OSError(errno.ENOSPC, "not told")


@pytest.mark.parametrize("interval", [None, 1, 3, 4, 8])
@pytest.mark.parametrize(("epochs", "period"), [(1, 1), (5, 2), (4, 0), (3, 1)])
@pytest.mark.parametrize("max_steps", [None, 5, 20])
def test_the_number_of_saves_still_to_come(interval, epochs, period, max_steps):
    """Against a walk over the events of `medjax.loop`; 8 batches an epoch."""
    settings = config("x", nb_training_epochs=epochs, checkpoint_period=period)
    options = Options(save_interval_steps=interval, max_steps=max_steps)
    plan = Plan.of(8, settings, options)
    saves = []
    for epoch in range(1, plan.nb_epochs + 1):
        stop = plan.last_stop if epoch == plan.nb_epochs else 8
        for batch in range(1, stop):
            if interval is not None and batch % interval == 0:
                saves.append((epoch, batch))
        if epoch == plan.nb_epochs or (period and epoch % period == 0):
            saves.append((epoch, math.inf))
    positions = [(1, 0), *((e + 1, 0) if b == math.inf else (e, b) for e, b in saves)]
    for epoch, batch in positions:
        left = [save for save in saves if save > (epoch, batch)]
        nb_saves = plan.nb_saves(8, settings, options, epoch=epoch, batch=batch)
        assert nb_saves == len(left), (epoch, batch)
    assert plan.nb_saves(8, settings, options, epoch=plan.nb_epochs + 1, batch=0) == 0


def test_the_number_of_saves_is_that_of_a_real_run(tmp_path):
    callback = Saves()
    settings = {"nb_training_epochs": 3, "checkpoint_period": 2}
    options = Options(save_interval_steps=3)
    run(tmp_path, callback, options=options, **settings)
    plan = Plan.of(8, config("x", **settings), options)
    expected = plan.nb_saves(8, config("x", **settings), options, epoch=1, batch=0)
    assert callback.saved == expected == 8


def test_the_estimated_size_is_close_to_the_real_one(tmp_path):
    """Large enough for the arrays to outweigh names and numbers."""
    state = {"w": jnp.asarray(np.random.RandomState(0).rand(500_000), jnp.float32)}
    with CheckpointStore(tmp_path, "run") as store:
        path = put(store, 1.0, state=state)
    assert space.bytes_in(path) == pytest.approx(space.bytes_of(state), rel=0.15)
    assert shutil.disk_usage(tmp_path).free > 0
