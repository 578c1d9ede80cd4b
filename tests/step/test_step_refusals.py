"""Batches that train nothing: without weight, or with a non-finite loss or gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stepping import POINTS, assert_close, batches, params, with_broken
from tiny import (
    mlp,
    on_device,
    run_steps,
    same_bits,
    state_and_step,
)

from medjax import BatchData, Mean, Options
from medjax.batch import ROW_MASK


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
