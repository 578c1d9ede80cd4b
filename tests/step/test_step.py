"""The training step: accumulation, purity, precision, compilations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax._src.array import ArrayImpl
from stepping import POINTS, assert_close, batches, params, with_broken
from tiny import (
    CLASSES,
    mlp,
    on_device,
    one_device,
    run_steps,
    same_bits,
    start_state,
    state_and_step,
)

from medjax import (
    BatchData,
    Mean,
    Options,
    by_step,
    make_eval_step,
    make_forward_pass,
    with_update_due,
)
from medjax.batch import ROW_MASK
from medjax.schedules import reduce_on_plateau


@pytest.mark.parametrize("optimizer", [optax.sgd, optax.adamw])
def test_small_batches_accumulated_equal_one_large_batch(optimizer):
    component = mlp(optimizer=optimizer)
    options = Options(max_grad_norm=0.5)
    large, _ = run_steps(
        *state_and_step(component, options=options), batches(component, 12), flush_last=False
    )
    small, stats = run_steps(
        *state_and_step(component, options=options, accumulation=3),
        batches(component, 4),
        flush_last=False,
    )
    assert int(large.step) == int(small.step) == 2
    assert int(small.batch_step) == 6
    assert int(small.pending) == 0
    assert_close(params(small), params(large))
    assert_close(stats.losses, large.losses, 1e-5)


def test_a_short_last_group_is_flushed():
    component = mlp()
    items = POINTS[:20]  # 5 batches of 4 in groups of 3: the last group holds 8 rows
    small, _ = run_steps(*state_and_step(component, accumulation=3), batches(component, 4, items))
    large, step = state_and_step(component)
    for part in (items[:12], items[12:]):
        large, _ = step(large, on_device(component, part))
    assert int(small.step) == 2
    assert_close(params(small), params(large))
    waiting, _ = run_steps(
        *state_and_step(component, accumulation=3), batches(component, 4, items), flush_last=False
    )
    assert (int(waiting.step), int(waiting.pending)) == (1, 2)


def test_a_batch_that_may_wait_has_to_say_whether_it_does():
    component = mlp()
    state, step = state_and_step(component, accumulation=2)
    batch = batches(component, 4)[0]
    with pytest.raises(ValueError, match=r"no entry 'update_due'.*medjax\.with_update_due\(batch"):
        step(state, batch)
    state, _ = step(state, with_update_due(batch, False))
    state, _ = step(state, with_update_due(batch, True))
    assert (int(state.step), int(state.pending)) == (1, 0)
    assert "update_due" not in step.compilations[-1].batch


def test_a_forward_does_not_see_the_mark():
    component, seen = mlp(), []

    def forward(variables, batch, key, /, **flags):
        seen.append(sorted(batch))
        return component.forward(variables, batch, key, **flags)

    run_steps(*state_and_step(component._replace(forward=forward)), batches(component, 4))
    assert seen == [["labels", "row_mask", "weights", "x"]]


def test_padding_rows_change_nothing():
    component = mlp()
    alone, _ = run_steps(*state_and_step(component), [on_device(component, POINTS[:5])])
    padded, _ = run_steps(*state_and_step(component), [on_device(component, POINTS[:5], 8)])
    assert_close(params(alone), params(padded), 1e-7)
    assert float(alone.losses.weight) == float(padded.losses.weight)


def test_the_step_takes_over_the_state():
    component = mlp(optimizer=optax.adam)
    state, step = state_and_step(component)
    batch = batches(component, 4)[0]
    new, stats = step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert not batch["x"].is_deleted()
    newer, _ = step(new, batch)
    assert np.isfinite(float(stats.losses.compute()))  # outlives the state it came with
    assert int(newer.step) == 2


def test_the_step_is_pure():
    component = mlp(dropout=0.5)
    first, step = state_and_step(component, accumulation=2)
    second = jax.tree.map(jnp.copy, first)
    other = jax.tree.map(jnp.copy, first).replace(key=jax.random.key(1))
    (first, _), (second, _), (other, _) = (
        run_steps(state, step, batches(component, 4)) for state in (first, second, other)
    )
    assert same_bits(first, second)
    assert not same_bits(first.params, other.params)


def test_dropout_differs_from_batch_to_batch():
    component = mlp(dropout=0.5)
    state, step = state_and_step(component, learning_rate=0.0, with_outputs=True)
    batch = batches(component, 4)[0]
    state, first = step(state, batch)
    state, second = step(state, batch)
    assert not same_bits(first.outputs, second.outputs)


def test_the_rate_is_that_of_the_update_and_of_the_host():
    component = mlp()
    decay = optax.linear_schedule(1.0, 0.0, 4)
    state, step = state_and_step(component, schedule=by_step(decay), accumulation=2)
    rates = []
    for batch in batches(component, 4):
        state, stats = step(state, with_update_due(batch, False))
        rates.append(float(stats.learning_rate))
    assert rates == pytest.approx([1.0, 1.0, 0.75, 0.75, 0.5, 0.5])


def test_another_learning_rate_compiles_nothing_and_is_used():
    component = mlp()
    batch = batches(component, 4)[0]
    state, step = state_and_step(component, schedule=reduce_on_plateau())
    state, _ = step(state, batch)
    before = params(state)
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        rate = jax.device_put(np.float32(0.0), state.learning_rate.sharding)
        compiled.clear()
        state, stats = step(state.replace(learning_rate=rate), batch)
        assert compiled == []
    finally:
        jax.monitoring.clear_event_listeners()
    assert step.nb_compilations == 1
    assert float(stats.learning_rate) == 0.0
    assert same_bits(params(state), before)


def test_the_count_of_compilations_is_xlas():
    component = mlp()
    state, step = state_and_step(component)
    evaluate = make_eval_step(component.forward, options=Options(), mesh=one_device())
    inputs = [on_device(component, POINTS[:n], n) for n in (4, 8, 4, 12, 8, 4)]
    flags = (jnp.asarray(False), jnp.asarray(True))
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        for batch in inputs:
            state, _ = step(state, with_update_due(batch, flags[0]))
            state, _ = step(state, with_update_due(batch, flags[1]))
        assert step.nb_compilations == len(compiled) == 3
        for batch in inputs:
            evaluate(state.variables, batch)
        assert evaluate.nb_compilations == 3
        assert len(compiled) == 6
    finally:
        jax.monitoring.clear_event_listeners()


def test_the_step_reads_nothing_from_the_device(monkeypatch):
    component = mlp()
    state, step = state_and_step(component, accumulation=2)
    inputs = batches(component, 4)
    flag = jnp.asarray(False)
    read = []
    value = ArrayImpl._value.fget  # what every float(), int(), bool() and asarray() goes through
    monkeypatch.setattr(
        ArrayImpl, "_value", property(lambda array: (read.append(array.shape), value(array))[1])
    )
    float(flag)
    assert read == [()]  # the spy sees what is read
    read.clear()
    with jax.transfer_guard_device_to_host("disallow"):  # heard by accelerators only
        for batch in inputs:
            state, _ = step(state, with_update_due(batch, flag))
    assert read == []


def test_bfloat16_computes_low_and_stores_high():
    seen = []
    component = mlp()

    def forward(variables, batch, key, /, **flags):
        seen.extend(
            [variables["params"]["w1"].dtype, batch["x"].dtype, variables["stats"]["count"].dtype]
        )
        outputs, loss, _ = component.forward(variables, batch, key, **flags)
        count = variables["stats"]["count"] + jnp.float32(2**-12)
        return outputs, loss, {"stats": {"count": count}}

    def init(key):
        return {**component.init(key), "stats": {"count": jnp.ones(())}}

    counting = component._replace(forward=forward, init=init)
    exact, stats = run_steps(*state_and_step(counting), batches(component, 4))
    assert set(seen) == {jnp.dtype("float32")}
    seen.clear()
    low, low_stats = run_steps(
        *state_and_step(counting, options=Options(precision="bfloat16")), batches(component, 4)
    )
    bfloat16, float32 = jnp.dtype("bfloat16"), jnp.dtype("float32")
    assert seen[:3] == [bfloat16, bfloat16, float32]
    assert {leaf.dtype for leaf in jax.tree.leaves(low.params)} == {float32}
    assert float(low_stats.losses.compute()) == pytest.approx(
        float(stats.losses.compute()), rel=0.02
    )
    assert not same_bits(low.params, exact.params)
    assert_close(params(low), params(exact), 0.02)
    # Statistics are kept at full precision: bfloat16 would lose each of these small steps.
    assert float(low.collections["stats"]["count"]) == 1 + 6 * 2**-12


def test_bfloat16_does_not_round_the_labels():
    """A target of 1013 would become 1012."""

    def forward(variables, batch, key, /, **flags):
        predicted = batch["x"] @ variables["params"]["w1"][:, :1]
        losses = (predicted[:, 0] - batch["labels"]) ** 2
        return BatchData(), Mean.of(losses, batch[ROW_MASK]), {}

    component = mlp()._replace(forward=forward)
    batch = BatchData(
        x=np.zeros((2, 4), np.float32), labels=np.float32([1013, 1013]), row_mask=np.ones(2, "f4")
    )
    forward_pass = make_forward_pass(component.forward, Options(precision="bfloat16"))
    _, loss, _ = forward_pass(component.init(jax.random.key(0)), batch, jax.random.key(0), False)
    assert float(loss.compute()) == 1013**2


def test_collections_follow_the_batches_that_count():
    component = mlp()

    def forward(variables, batch, key, /, **flags):
        outputs, loss, _ = component.forward(variables, batch, key, **flags)
        return outputs, loss, {"stats": {"seen": variables["stats"]["seen"] + batch["x"].sum()}}

    def init(key):
        return {**component.init(key), "stats": {"seen": jnp.zeros(())}}

    counting = component._replace(forward=forward, init=init)
    options = Options(on_non_finite="skip")
    state, _ = run_steps(*state_and_step(counting, options=options), with_broken(component, {1, 2}))
    expected = sum(item["x"].sum() for item in POINTS[:4] + POINTS[12:])
    assert float(state.collections["stats"]["seen"]) == pytest.approx(expected, rel=1e-5)
    assert set(state.variables) == {"params", "stats"}


def test_the_norm_is_that_of_the_mean_loss():
    component = mlp()
    state, step = state_and_step(component)
    batch = on_device(component, POINTS[:6])

    def mean_loss(params):
        flags = {"return_loss": True, "eval_mode": True}
        return component.forward({"params": params}, batch, None, **flags)[1].compute()

    expected = float(optax.tree.norm(jax.grad(mean_loss)(state.params)))
    _, stats = step(state, batch)
    assert float(stats.grad_norm) == pytest.approx(expected, rel=1e-5)


def test_weight_decay_spares_vectors_and_clipping_bounds_the_update():
    component = mlp()
    start = params(start_state(component))
    nothing = [{**item, "x": item["x"] * 0, "label": 0} for item in POINTS[:4]]
    options = Options(weight_decay=0.5, max_grad_norm=1e-6)
    state, _ = run_steps(
        *state_and_step(component, options=options), [on_device(component, nothing)]
    )
    for name, value in params(state).items():
        factor = 1 - 0.1 * 0.5 if value.ndim > 1 else 1.0
        np.testing.assert_allclose(value, start[name] * factor, atol=2e-7, err_msg=name)
    clipped, _ = run_steps(
        *state_and_step(component, options=Options(max_grad_norm=0.01), learning_rate=1.0),
        [on_device(component, POINTS)],
    )
    moved = optax.tree.norm(jax.tree.map(np.subtract, params(clipped), start))
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_a_component_without_a_loss_is_refused():
    component = mlp()

    def forward(variables, batch, key, /, *, return_loss, eval_mode):
        return BatchData(), None, {}

    state, step = state_and_step(component._replace(forward=forward))
    with pytest.raises(ValueError, match=r"The component did not return a 'loss' from the input\."):
        step(state, on_device(component, POINTS[:4]))


def test_a_component_without_parameters_is_refused():
    with pytest.raises(ValueError, match=r"init returned no parameters; expected \{'params'"):
        start_state(mlp()._replace(init=lambda key: {"stats": {"a": jnp.zeros(1)}}))


@pytest.mark.parametrize("seeds", [(0, 2**32), (1, 2**63 - 1), (2**32 - 1, 2**33 - 1)])
def test_every_bit_of_the_seed_counts(seeds):
    first, second = (start_state(mlp(), seed=seed) for seed in seeds)
    assert not same_bits(first.params, second.params)
    assert not same_bits(jax.random.key_data(first.key), jax.random.key_data(second.key))


def test_the_forward_pass_alone():
    component = mlp(dropout=0.5)
    batch = on_device(component, POINTS[:5], 8)
    forward = make_forward_pass(component.forward, Options())
    variables = component.init(jax.random.key(0))
    outputs, loss, collections = forward(variables, batch, jax.random.key(1), True)
    assert outputs["logits"].shape == (8, CLASSES)
    assert float(loss.weight) == sum(item["weight"] for item in POINTS[:5])
    assert collections == {}
    medkit = make_forward_pass(component.forward, Options(loss_arithmetic="medkit"))
    _, mean, _ = medkit(variables, batch, jax.random.key(1), True)
    assert float(mean.weight) == 1.0
    assert float(mean.total) == pytest.approx(float(loss.compute()))
