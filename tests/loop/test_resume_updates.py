"""Resuming runs of a number of updates: they end at that number, whatever was trained before."""

import json
import logging
import shutil

import jax
import numpy as np
import optax
import pytest
from resumed_runs import Dies, run
from tiny import mlp, points, same_bits

import medjax
from medjax import EpochLoss, Mean, MismatchError, Options
from medjax.checkpoint.manifest import write_manifest
from medjax.loop.plan import Plan, Start


def slow(value):
    """Return a value of a parameter with which a test is slow."""
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.mark.parametrize("batch_size", [2, slow(3), 4, slow(6), 24])
@pytest.mark.parametrize("max_steps", [9, 10, slow(15), 16])
def test_a_resumed_run_ends_at_the_number_of_updates(tmp_path, batch_size, max_steps):
    first = run(tmp_path, epochs=9, options={"max_steps": 9})  # epoch 2 is cut after batch 3 of 6
    assert (int(first.state.step), len(first.history)) == (9, 2)
    options = {"max_steps": max_steps}
    more = {"options": options, "batch_size": batch_size, "resume": "auto"}
    result = run(tmp_path, epochs=9, **more)
    assert int(result.state.step) == max_steps


@pytest.mark.parametrize("accumulation", [1, slow(2), 4])
@pytest.mark.parametrize("max_steps", [1, 4, slow(7), 8, 9, 14])
def test_a_run_that_was_interrupted_ends_at_the_number_of_updates(
    tmp_path, accumulation, max_steps
):
    settings = {"batch_size": 3, "options": {"save_interval_steps": 2}}
    with pytest.raises(RuntimeError):
        run(tmp_path, epochs=5, callback=Dies(2, 5), **settings)  # saved after batch 4 of 8
    settings = {"batch_size": 3, "options": {"max_steps": max_steps}}
    if accumulation > 1:  # from the end of the first epoch
        settings["gradient_accumulation_steps"] = accumulation
        settings["resume"] = sorted(tmp_path.glob("checkpoint_001_2*"))[0]
    result = run(tmp_path, epochs=5, **{"resume": "auto", **settings})
    done = 12 if accumulation == 1 else 8
    left = 5 * 8 - done if accumulation == 1 else 4 * -(-8 // accumulation)
    assert int(result.state.step) == min(max(max_steps, done), done + left)


def test_an_uninterrupted_run_ends_in_the_same_bits(tmp_path):
    options = {"max_steps": 9, "warmup_steps": 0.5, "save_interval_steps": 2}
    settings = {"epochs": 4, "gradient_accumulation_steps": 2, "options": options}
    whole = run(tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError):
        run(tmp_path / "cut", callback=Dies(2, 3), **settings)
    resumed = run(tmp_path / "cut", resume="auto", **settings)
    assert int(whole.state.step) == 9
    assert resumed.history == whole.history
    assert same_bits(resumed.state, whole.state)


@pytest.mark.parametrize(
    ("column", "factor", "skipped"),
    [("x", np.nan, 2), ("weight", np.nan, 2), ("weight", -100, 0)],  # the last weighs nothing
)
def test_updates_that_were_not_made_count_in_a_resumed_run_as_well(
    tmp_path, column, factor, skipped
):
    data = points(24)
    data[3] = {**data[3], column: data[3][column] * np.float32(factor)}
    settings = {"on_non_finite": "skip", "max_steps": 15, "save_interval_steps": 1}
    whole = run(tmp_path / "whole", epochs=4, data=data, options=settings)
    with pytest.raises(RuntimeError):
        run(tmp_path / "cut", epochs=4, data=data, options=settings, callback=Dies(2, 5))
    resumed = run(tmp_path / "cut", epochs=4, data=data, options=settings, resume="auto")
    assert int(whole.state.step) == 13
    assert int(whole.state.skipped) == skipped
    assert same_bits(resumed.state, whole.state)


@pytest.mark.parametrize(
    ("accumulation", "options"),
    [(1, {}), (2, {"steps_per_dispatch": 4})],
    ids=["one by one", "four in a call"],
)
def test_skipped_batches_are_told_after_each_epoch(tmp_path, caplog, accumulation, options):
    data = points(24)
    for number in (3, 11):
        data[number] = {**data[number], "x": data[number]["x"] * np.float32(np.nan)}
    more = {"data": data, "batch_size": 2, "gradient_accumulation_steps": accumulation}
    more["component"] = mlp(optimizer=optax.adam)
    settings = {"on_non_finite": "skip", "save_interval_steps": 4, "length_window": 0, **options}
    orders = [medjax.epoch_order(7, epoch, 24).tolist() for epoch in (1, 2, 3)]
    counts = [len({order.index(3) // 2, order.index(11) // 2}) for order in orders]
    told = [f"epoch {n}: the loss or a gradient was not finite in {count} of 12 batches, which"
            for n, count in enumerate(counts, 1)]  # fmt: skip

    def said():
        found = [each for each in told if each in caplog.text]
        assert caplog.text.count("was not finite in") == len(found)
        caplog.clear()
        return found

    run(tmp_path / "whole", epochs=3, options=settings, **more)
    assert said() == told
    with pytest.raises(RuntimeError):
        run(tmp_path / "cut", epochs=3, options=settings, callback=Dies(2, 10), **more)
    assert said() == told[:1]
    run(tmp_path / "cut", epochs=3, options=settings, resume="auto", **more)
    assert said() == told[1:]
    more["data"] = points(24)
    run(tmp_path / "finite", epochs=1, options=settings, **more)
    assert said() == []


def test_a_warmup_is_a_fraction_of_the_updates_of_the_whole_run(tmp_path):
    # 6 updates, then 12: a third of 18 is the sixth, though the current epochs have 12 each.
    seen = []

    def rate(step):
        jax.debug.callback(lambda value: seen.append(int(value)), step)
        return 1.0

    run(tmp_path, epochs=1)
    options = {"warmup_steps": 0.5}
    component = mlp(optimizer=optax.adam)
    result = run(
        tmp_path, epochs=2, resume="auto", component=component, batch_size=2, options=options,
        schedule=rate,
    )  # fmt: skip
    assert int(result.state.step) == max(seen) + 1 == 18
    assert Plan.of(12, medjax.TrainerConfig("x", nb_training_epochs=2), Options(),
                   Start(2, 0, 6)).nb_updates == 18  # fmt: skip


def test_what_is_not_trained_on_of_a_cut_epoch_is_told(tmp_path, caplog):
    run(tmp_path, epochs=2, options={"max_steps": 9})
    with caplog.at_level(logging.WARNING, "medjax"):
        run(tmp_path, epochs=2, options={"max_steps": 9}, resume="auto")
        assert "batches early" not in caplog.text
        run(tmp_path, epochs=2, options={"max_steps": 12}, resume="auto")
        assert "epoch 2 had ended 3 batches early; they are not trained on" in caplog.text
        assert "set nb_training_epochs higher" in caplog.text
        caplog.clear()
        run(tmp_path, epochs=3, resume="auto")
    assert "epoch 2 had ended 3 batches early; they are not trained on" in caplog.text
    assert "set nb_training_epochs higher" not in caplog.text


def test_the_updates_of_a_run_that_an_older_version_began_are_those_of_its_state(tmp_path):
    result = run(tmp_path, epochs=9, options={"max_steps": 9})
    file = result.last_checkpoint / "training_state.json"
    record = json.loads(file.read_text())
    for name in ("updates", "left_out", "skipped"):
        del record["progress"][name]
    file.write_text(json.dumps(record))
    (result.last_checkpoint / "manifest.json").unlink()
    write_manifest(result.last_checkpoint)
    resumed = run(tmp_path, epochs=9, options={"max_steps": 20}, batch_size=6, resume="auto")
    assert int(resumed.state.step) == 20
    assert np.isfinite(resumed.history[-1]["train"]["loss"])


def test_a_run_with_another_loss_learns_anew_what_an_update_weighs(tmp_path):
    """The mean loss is the same, so the updates must be, too."""

    def weighing(weight):
        def forward(variables, batch, key, **flags):
            outputs, loss, collections = plain.forward(variables, batch, key, **flags)
            return outputs, Mean(weight * loss.total, weight * loss.weight), collections

        return plain._replace(forward=forward, loss_settings={"weight": weight})

    plain = mlp(optimizer=optax.sgd)
    settings = {"options": {"length_window": 8}, "learning_rate": 1e-2}
    first = run(tmp_path / "a", epochs=1, component=weighing(1.0), **settings)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = []
    for folder, weight in (("a", 1.0), ("b", 20.0)):
        component = weighing(weight)
        result = run(tmp_path / folder, epochs=2, component=component, resume="auto", **settings)
        assert isinstance(result.state.losses, EpochLoss)
        steps = jax.tree.map(
            np.subtract, *(jax.device_get(r.state.params) for r in (result, first))
        )
        moved.append(float(optax.tree.norm(steps)))
    assert moved[1] == pytest.approx(moved[0], rel=0.1)  # the first updates know too little


def test_another_loss_within_an_epoch_is_refused(tmp_path):
    component = mlp()._replace(loss_settings={"weight": 1.0})
    with pytest.raises(RuntimeError):
        run(
            tmp_path,
            epochs=2,
            component=component,
            callback=Dies(1, 4),
            options={"save_interval_steps": 2},
        )
    other = component._replace(loss_settings={"weight": 2.0})
    with pytest.raises(MismatchError, match=r"where loss was \{'weight': 1.0\}, but now it is"):
        run(tmp_path, epochs=2, component=other, resume="auto")
