"""Batches that train nothing, and states of other objects than those a step was made for."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stepping import POINTS, assert_close, batches, params, with_broken
from tiny import (
    mlp,
    on_device,
    one_device,
    run_steps,
    same_bits,
    start_state,
    state_and_step,
)

from medjax import BatchData, Mean, Options, make_train_step, make_train_steps, stack
from medjax.batch import ROW_MASK
from medjax.step import training


def weightless(items):
    return [{**item, "weight": 0.0} for item in items]


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("arithmetic", ["exact", "medkit"])
def test_a_batch_that_weighs_nothing_is_no_update(accumulation, arithmetic):
    component = mlp(optimizer=optax.adam)
    state, step = state_and_step(
        component, accumulation=accumulation, options=Options(loss_arithmetic=arithmetic)
    )
    before = params(state)
    nothing = on_device(component, weightless(POINTS[:4]))
    state, stats = run_steps(state, step, [nothing] * accumulation)
    assert same_bits(params(state), before)
    assert int(state.step) == 0
    assert int(state.pending) == 0
    assert int(stats.stopped_at) == -1
    assert float(stats.losses.weight) == 0.0
    state, _ = run_steps(state, step, batches(component, 4)[:accumulation])
    assert int(state.step) == 1


@pytest.mark.parametrize("arithmetic", ["exact", "medkit"])
def test_a_mean_made_by_hand_may_weigh_nothing(arithmetic):
    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        losses = ((batch["x"] @ variables["params"]["w1"]) ** 2).sum(-1)
        return BatchData(), Mean((losses * batch["weights"]).sum(), batch["weights"].sum()), {}

    component = mlp()._replace(forward=forward)
    _, stats = run_steps(
        *state_and_step(component, options=Options(loss_arithmetic=arithmetic)),
        [on_device(component, weightless(POINTS[:4]))],
    )
    assert int(stats.stopped_at) == -1
    assert float(stats.grad_norm) == 0.0


@pytest.mark.parametrize("arithmetic", ["exact", "medkit"])
def test_a_weightless_batch_within_a_group_leaves_the_others_alone(arithmetic):
    component = mlp()
    options = Options(loss_arithmetic=arithmetic)
    nothing = on_device(component, weightless(POINTS[:4]))
    first, second = batches(component, 4)[:2]
    state, step = state_and_step(component, accumulation=3, options=options)
    same = jax.tree.map(jnp.copy, state)
    with_it, _ = run_steps(state, step, [first, nothing, second])
    without, _ = run_steps(same, step, [first, second])
    assert int(with_it.step) == int(without.step) == 1
    assert_close(params(with_it), params(without), 1e-7)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_stop_keeps_the_state_of_before_the_broken_batch(accumulation):
    component = mlp(dropout=0.3, optimizer=optax.adam)
    state, step = state_and_step(component, accumulation=accumulation)
    state, stats = run_steps(state, step, with_broken(component, {3}))
    assert int(stats.stopped_at) == 3
    assert int(state.batch_step) == 3
    expected, _ = run_steps(
        *state_and_step(component, accumulation=accumulation),
        with_broken(component, set())[:3],
        flush_last=False,
    )
    assert same_bits(state.params, expected.params)
    assert same_bits(state.opt_state, expected.opt_state)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params(state)))


@pytest.mark.parametrize(("positions", "accumulation"), [({0, 3, 5}, 1), ({1, 2, 5}, 2)])
def test_skip_equals_a_run_without_these_batches(positions, accumulation):
    component = mlp(dropout=0.3, optimizer=optax.adamw)
    options = Options(on_non_finite="skip", max_grad_norm=1.0)
    skipped, stats = run_steps(
        *state_and_step(component, accumulation=accumulation, options=options),
        with_broken(component, positions),
    )
    good = [b for n, b in enumerate(with_broken(component, set())) if n not in positions]
    without, _ = run_steps(
        *state_and_step(component, accumulation=accumulation, options=options), good
    )
    assert int(skipped.skipped) == len(positions)
    assert int(stats.stopped_at) == -1
    for name in ("params", "opt_state", "losses", "step", "batch_step", "pending", "gradients"):
        assert same_bits(getattr(skipped, name), getattr(without, name)), name


def test_skip_stops_after_too_many_in_a_row():
    component = mlp()
    options = Options(on_non_finite="skip", max_skipped=2)
    state, step = state_and_step(component, options=options)
    stops = []
    for batch in with_broken(component, {0, 1, 3, 4, 5}):
        state, stats = step(state, batch)
        stops.append(int(stats.stopped_at))
    assert stops == [-1, -1, -1, -1, -1, 5]
    assert int(state.step) == 1
    frozen = params(state)
    state, stats = step(state, batches(component, 4)[0])
    assert int(stats.stopped_at) == 5
    assert same_bits(params(state), frozen)


def test_an_infinite_gradient_under_a_finite_loss_is_not_finite():
    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        root = jnp.sqrt(variables["params"]["w"][0])  # finite at 0, its slope is not
        return BatchData(), Mean.of(batch["x"][:, 0] * 0 + root, batch[ROW_MASK]), {}

    component = mlp()._replace(init=lambda key: {"params": {"w": jnp.zeros(2)}}, forward=forward)
    _, stats = run_steps(*state_and_step(component), [on_device(component, POINTS[:4])])
    assert int(stats.stopped_at) == 0


@pytest.mark.parametrize("arithmetic", ["exact", "medkit"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_nan_that_weighs_nothing_counts_nothing(arithmetic, accumulation):
    """torch's mean over labels that are all ignored is such a NaN, and so is its slope."""

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        weight = batch["weights"].sum()
        losses = ((batch["x"] @ variables["params"]["w1"]) ** 2).sum(-1) * batch["weights"]
        mean = losses.sum() / weight
        return BatchData(), Mean(mean * weight, weight), {}

    component = mlp(optimizer=optax.adam)._replace(forward=forward)
    options = Options(loss_arithmetic=arithmetic)
    nothing = on_device(component, weightless(POINTS[:4]))
    good = batches(component, 4)[:accumulation]
    state, step = state_and_step(component, accumulation=accumulation, options=options)
    same = jax.tree.map(jnp.copy, state)
    state, stats = run_steps(state, step, [nothing] * accumulation)
    assert int(stats.stopped_at) == -1
    assert float(stats.grad_norm) == 0.0
    assert same_bits(state.params, same.params)
    state, _ = run_steps(state, step, good)
    without, _ = run_steps(same, step, good)
    for name in ("params", "opt_state", "losses", "step"):
        assert same_bits(getattr(state, name), getattr(without, name)), name


@pytest.mark.parametrize("separate_update", [False, True])
@pytest.mark.parametrize("name", ["optimizer", "component"])
def test_a_state_of_another_object_is_refused_with_what_to_do(name, separate_update):
    component = mlp(optimizer=optax.adam)
    first = start_state(component)
    step = make_train_step(first, mesh=one_device(), separate_update=separate_update)
    batch = batches(component, 4)[0]
    if name == "optimizer":
        second = start_state(component)  # calls make_optimizer again
    else:
        other = mlp(optimizer=optax.adam)
        second = dataclasses.replace(start_state(other), tx=first.tx)
    told = f"another {name} object than .* Use the same {name} object that made the first state"
    with pytest.raises(ValueError, match=told):
        step(second, batch)
    first, _ = step(first, batch)
    assert int(first.step) == 1
    made = make_train_step(second, mesh=one_device(), separate_update=separate_update)
    if name == "optimizer":
        assert int(made(second, batch)[0].step) == 1  # what the message says to do


def test_several_steps_in_a_call_refuse_a_state_of_another_optimizer():
    component = mlp()
    steps = make_train_steps(start_state(component), mesh=one_device())
    with pytest.raises(ValueError, match="another optimizer object"):
        steps(start_state(component), stack(batches(component, 4)[:2]))


def test_the_objects_are_compared_when_a_step_is_traced_only(monkeypatch):
    compared = []
    check = training._check_static_fields
    monkeypatch.setattr(
        training, "_check_static_fields", lambda *args: [compared.append(1), check(*args)]
    )
    component = mlp()
    state, step = state_and_step(component)
    run_steps(state, step, batches(component, 4)[:3])
    assert len(compared) == step.nb_compilations == 1
