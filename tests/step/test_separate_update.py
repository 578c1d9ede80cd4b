"""The update as a separate program: the same training, fewer and shorter compilations."""

import jax
import numpy as np
import optax
import pytest
from stepping import POINTS, assert_close, batches, params, with_broken
from tiny import config, mlp, on_device, one_device, points, start_state, state_and_step

import medjax
from medjax import Options, make_train_step
from medjax.schedules import constant
from medjax.step import training, with_update_due


def both_ways(component, options, accumulation, inputs):
    """Return state and stats after training in one program and in two, and the two steps."""
    results = []
    for separate in (False, True):
        state = start_state(component, options=options, accumulation=accumulation)
        step = make_train_step(
            state,
            schedule=constant(),
            options=options,
            accumulation=accumulation,
            mesh=one_device(),
            with_outputs=True,
            separate_update=separate,
        )
        for number, batch in enumerate(inputs):
            state, stats = step(state, with_update_due(batch, number + 1 == len(inputs)))
        results.append((state, stats, step))
    return results


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize(
    "options",
    [
        Options(max_grad_norm=0.5),
        Options(precision="bfloat16", loss_arithmetic="medkit"),
        Options(on_non_finite="skip"),
    ],
    ids=["float32", "bfloat16", "skip"],
)
def test_two_programs_train_as_one(options, accumulation):
    component = mlp(dropout=0.3, optimizer=optax.adamw)
    skips = options.on_non_finite == "skip"
    inputs = with_broken(component, {1, 3}) if skips else batches(component, 4)
    (one, told, _), (two, told_too, _) = both_ways(component, options, accumulation, inputs)
    assert_close(params(one), params(two))
    assert int(one.skipped) == int(two.skipped) == (2 if skips else 0)
    assert int(one.step) == int(two.step) > 0
    assert_close(jax.device_get(told), jax.device_get(told_too))


def test_the_update_is_compiled_once_for_all_shapes():
    component = mlp()
    inputs = [on_device(component, POINTS[:n], n) for n in (4, 8, 4, 12, 8)]
    *_, (_, _, step) = both_ways(component, Options(), 1, inputs)
    made = [compilation.batch for compilation in step.compilations]
    assert made.count("the update of any batch") == 1
    assert step.nb_compilations == len(made) == 4


def test_the_state_is_taken_over_and_the_batch_is_not():
    component = mlp(optimizer=optax.adam)
    state = start_state(component)
    step = make_train_step(
        state,
        schedule=constant(),
        options=Options(),
        accumulation=1,
        mesh=one_device(),
        separate_update=True,
    )
    batch = batches(component, 4)[0]
    new, _ = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert not batch["x"].is_deleted()
    assert np.isfinite(float(step(new, batch)[1].grad_norm))


def test_a_step_that_failed_can_be_tried_again():
    component = mlp()
    *_, (state, _, step) = both_ways(component, Options(), 1, batches(component, 4))
    before = params(state)
    batch = batches(component, 4)[0]
    with pytest.raises(TypeError):
        step(state, medjax.BatchData(batch, x="no array"))
    assert_close(params(state), before, 0)
    state, _ = step(state, batch)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params(state)))


@pytest.mark.parametrize("large", [False, True])
def test_models_from_a_size_on_get_two_programs(tmp_path, monkeypatch, large):
    component = mlp()
    size = sum(leaf.size for leaf in jax.tree.leaves(state_and_step(component)[0].params))
    monkeypatch.setattr(training, "LARGE", size if large else size + 1)
    result = medjax.train(component, config(tmp_path), points(20), callback=[])
    updates = [made for made in result.compilations if made.batch == "the update of any batch"]
    assert len(updates) == large


def test_what_is_compiled_ahead_is_not_compiled_again():
    component = mlp(dropout=0.3, optimizer=optax.adamw)
    inputs = [on_device(component, POINTS[:n], n) for n in (4, 8)]
    results = []
    for is_ahead in (False, True):
        state = start_state(component)
        step = make_train_step(state, mesh=one_device(), separate_update=True)
        for batch in inputs if is_ahead else ():
            step.compile_ahead(state, batch)
        assert step.nb_compilations == (3 if is_ahead else 0)
        for batch in inputs:
            state, stats = step(state, batch)
        assert step.nb_compilations == 3
        assert all(made.seconds > 0 for made in step.compilations)
        results.append(jax.device_get((params(state), stats)))
    jax.tree.map(np.testing.assert_array_equal, *results)
