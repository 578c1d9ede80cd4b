"""What an update weighs: where batches are grouped by length, a label counts the same in all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resumed_runs import Dies, run
from stepping import POINTS, assert_close, batches, params
from tiny import (
    as_it_is,
    collate_sentences,
    config,
    mlp,
    points,
    run_steps,
    same_bits,
    state_and_step,
)

import medjax
from medjax import BatchData, EpochLoss, Mean, Options, TrainableComponent
from medjax.batch import ROW_MASK
from medjax.checkpoint import CheckpointStore
from medjax.loop import phases


def by_hand(component, updates, start, *, by_usual):
    """Return parameters after one update of plain descent, at a rate of 0.1, for each batch."""

    def total_of(parameters, batch):
        flags = {"return_loss": True, "eval_mode": False}
        return component.forward({"params": parameters}, batch, jax.random.key(0), **flags)[1].total

    weights, parameters = [], start
    for batch in updates:
        slopes = jax.grad(total_of)(parameters, batch)
        weights.append(float((batch["weights"] * batch[ROW_MASK]).sum()))
        size = 0.1 / (np.mean(weights) if by_usual else weights[-1])
        parameters = optax.apply_updates(parameters, optax.tree.scale(-size, slopes))
    return jax.device_get(parameters)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("is_grouped", [True, False])
def test_an_update_counts_by_what_it_weighs(is_grouped, accumulation):
    component = mlp()
    state, step = state_and_step(component, accumulation=accumulation, is_grouped=is_grouped)
    updates = batches(component, 3 * accumulation)  # their weights differ
    expected = by_hand(component, updates, state.params, by_usual=is_grouped)
    state, _ = run_steps(state, step, batches(component, 3))
    assert_close(params(state), expected, 1e-5)


def test_medkits_arithmetic_weighs_no_update():
    component, options = mlp(), Options(loss_arithmetic="medkit")
    state, step = state_and_step(component, options=options, is_grouped=True)
    expected = by_hand(component, batches(component, 3), state.params, by_usual=False)
    state, _ = run_steps(state, step, batches(component, 3))
    assert_close(params(state), expected, 1e-5)


def test_the_norm_is_that_of_the_mean_loss_whatever_an_update_weighs():
    component = mlp()
    heavy = [{**item, "weight": 3.0} for item in POINTS[:4]]
    light = [{**item, "weight": 1.0} for item in POINTS[4:8]]
    inputs = batches(component, 4, [*heavy, *light])
    lengths, norms = {}, {}
    for is_grouped in (True, False):
        state, step = state_and_step(component, is_grouped=is_grouped)
        state, _ = step(state, inputs[0])
        before = params(state)
        state, stats = step(state, inputs[1])
        moved = jax.tree.map(lambda new, old: (new - old) / 0.1, params(state), before)
        lengths[is_grouped] = float(optax.tree.norm(moved))
        norms[is_grouped] = float(stats.grad_norm)
    assert norms[True] == pytest.approx(norms[False], rel=1e-5)
    assert lengths[False] == pytest.approx(norms[False], rel=1e-4)
    assert lengths[True] == pytest.approx(norms[False] * 4 / 8, rel=1e-4)  # usually 8, here 4


def pulls(*, optimizer=optax.sgd):
    """Return a component whose labels all pull at one of two weights: short texts at the first."""

    def init(key):
        return {"params": {"w": jnp.zeros(2)}}

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        counted = (batch["labels"] >= 0) * batch[ROW_MASK][:, None]
        losses = -variables["params"]["w"][jnp.maximum(batch["labels"], 0)]
        return BatchData(), Mean.of(losses, counted) if return_loss else None, {}

    return TrainableComponent(
        init, as_it_is, collate_sentences, forward, optimizer, np.save, np.load
    )


def texts(count):
    """Return as many texts of 3 words, all of label 0, as of 27 words, all of label 1."""
    kinds = [(3, 0), (27, 1)] * (count // 2)
    return [{"input_ids": np.ones(n, int), "labels": np.full(n, label)} for n, label in kinds]


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 9.0),  # as many times as there are labels
        ({"length_window": 0}, 7.0),  # the mean of the shares in batches of 8 texts at random
        ({"loss_arithmetic": "medkit"}, 1.0),
    ],
)
def test_labels_of_short_and_long_texts_count_the_same_in_a_run(tmp_path, options, share):
    result = medjax.train(
        pulls(),
        config(tmp_path, nb_training_epochs=4, learning_rate=1.0, batch_size=8),
        texts(640),
        texts(8),
        options=Options(length_ladder=(4, 32), **options),
    )
    short, long = np.asarray(result.state.params["w"])
    assert long / short == pytest.approx(share, rel=0.1)


def test_the_mean_is_that_of_two_epochs_of_the_same_data(tmp_path, monkeypatch):
    """What updates weighed in other data, or with another batch size, says nothing any more."""
    settings = {"component": mlp(), "data": points(24, weighted=True)}
    seen = []
    next_epoch = phases.next_epoch

    def spied(run, state, *args):
        seen.append((int(state.losses.nb_updates), float(state.losses.before.weight)))
        return next_epoch(run, state, *args)

    monkeypatch.setattr(phases, "next_epoch", spied)
    run(tmp_path, epochs=2, **settings)
    result = run(tmp_path, epochs=4, batch_size=8, resume="auto", **settings)
    assert seen == [(6, 0), (6, 6), (3, 0), (3, 3)]
    weight = sum(item["weight"] for item in settings["data"])
    assert float(result.state.losses.before.total) == weight
    assert float(result.state.losses.weight) == int(result.state.losses.nb_updates) == 0


@pytest.mark.parametrize(
    ("optimizer", "is_weighed"),
    [(optax.sgd, True), (lambda rate: optax.polyak_sgd(scaling=rate), False)],
)
def test_an_optimizer_that_depends_on_the_loss_follows_mean_losses(tmp_path, optimizer, is_weighed):
    """A loss that is weighed by its update could not be compared with that of another."""
    settings = {"component": mlp(optimizer=optimizer), "data": points(22, weighted=True)}
    grouped = run(tmp_path / "grouped", epochs=2, **settings).state
    assert isinstance(grouped.losses, EpochLoss) == is_weighed


def test_parameters_of_bfloat16_train():
    def init(key):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), mlp().init(key))

    component = mlp(optimizer=optax.adam)._replace(init=init)
    state, step = state_and_step(component, is_grouped=True)
    state, _ = run_steps(state, step, batches(component, 3))
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(state.params))


def test_what_updates_weigh_is_the_same_after_a_resume(tmp_path):
    settings = {"epochs": 3, "data": points(24, weighted=True)}
    settings["options"] = {"save_interval_steps": 2}
    whole = run(tmp_path / "whole", **settings)
    with pytest.raises(RuntimeError):
        run(tmp_path / "cut", callback=Dies(2, 3), **settings)
    resumed = run(tmp_path / "cut", resume="auto", **settings)
    assert same_bits(resumed.state, whole.state)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_checkpoint_without_the_number_of_updates_goes_on(tmp_path, monkeypatch, accumulation):
    settings = {"epochs": 2, "gradient_accumulation_steps": accumulation}
    settings |= {"options": {"save_interval_steps": 3}, "data": points(24, weighted=True)}
    whole = run(tmp_path / "whole", **settings)
    save = CheckpointStore.save

    def save_as_before(self, path, state, *args, **more):
        losses = Mean(state.losses.total, state.losses.weight)
        save(self, path, state.replace(losses=losses), *args, **more)

    with monkeypatch.context() as earlier:
        earlier.setattr(CheckpointStore, "save", save_as_before)
        with pytest.raises(RuntimeError):
            run(tmp_path / "cut", callback=Dies(1, 5), **settings)
    result = run(tmp_path / "cut", resume="auto", **settings)
    assert same_bits(result.state, whole.state)


@pytest.mark.parametrize("windows", [(100, 0), (0, 100)])
def test_grouping_may_begin_or_end_between_epochs(tmp_path, windows):
    before, after = ({"length_window": window} for window in windows)
    run(tmp_path, epochs=1, options=before)
    result = run(tmp_path, epochs=2, resume="auto", options=after)
    assert isinstance(result.state.losses, EpochLoss) == (windows[1] > 0)
    assert int(result.state.step) == 12


def test_gradients_of_bfloat16_are_added_up_in_float32():
    """In bfloat16, a sum of 256 equal numbers is rounded at each addition."""

    def as_bfloat16(key):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), plain.init(key))

    plain = mlp()
    component = plain._replace(init=as_bfloat16)
    batch = batches(component, 2)[0]
    moved = []
    for steps in (2, 256):
        state, step = state_and_step(component, accumulation=steps)
        start = params(state)
        state, _ = run_steps(state, step, [batch] * steps)
        assert int(state.step) == 1
        moved.append(jax.tree.map(np.subtract, params(state), start))
    for two, many in zip(*map(jax.tree.leaves, moved), strict=True):
        assert many.dtype == jnp.bfloat16
        np.testing.assert_array_equal(two, many)
