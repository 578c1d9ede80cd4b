"""Optimizers with a state of their own, in complete runs: rates, accumulation, resuming."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from optax_optimizers import WRAPPED, loss_of, made
from stepping import assert_close, batches, params
from tiny import config, mlp, points, run_steps, same_bits, state_and_step

import medjax
from medjax import Options, by_step, reduce_on_plateau

KEY = jax.random.key(0)


def injected(rate):
    def build(learning_rate, weight_decay, momentum, b2):
        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.trace(momentum),
            optax.inject_hyperparams(optax.scale_by_rms)(decay=b2),
            optax.scale(-learning_rate),
        )

    inject = optax.inject_hyperparams(build)
    return inject(rate, weight_decay=0.1 * rate, momentum=0.9, b2=lambda step: 0.9 + 0.01 * step)


def test_the_rate_is_that_of_the_run_and_all_else_is_the_users():
    state, step = state_and_step(
        mlp(optimizer=injected), schedule=by_step(optax.linear_schedule(1.0, 0.0, 4))
    )
    seen = []
    for batch in batches(mlp(), 8):
        state, stats = step(state, batch)
        inner = state.opt_state.inner_state[0].hyperparams
        seen.append({name: float(value) for name, value in inner.items()})
        assert seen[-1]["learning_rate"] == float(stats.learning_rate)
    assert [row["learning_rate"] for row in seen] == pytest.approx([1.0, 0.75, 0.5])
    assert [row["weight_decay"] for row in seen] == pytest.approx([0.1, 0.075, 0.05])
    assert [row["momentum"] for row in seen] == pytest.approx([0.9] * 3)
    assert [row["b2"] for row in seen] == pytest.approx([0.9, 0.91, 0.92])


def test_what_the_user_sets_in_the_state_stays():
    state, step = state_and_step(mlp(optimizer=injected))
    outer = state.opt_state
    inner = outer.inner_state[0]
    inner = inner._replace(hyperparams={**inner.hyperparams, "momentum": jnp.float32(0.5)})
    state = state.replace(opt_state=outer._replace(inner_state=(inner, *outer.inner_state[1:])))
    state, _ = run_steps(state, step, batches(mlp(), 8))
    assert float(state.opt_state.inner_state[0].hyperparams["momentum"]) == 0.5


def test_another_rate_of_the_host_compiles_nothing(tmp_path):
    result = medjax.train(
        mlp(optimizer=WRAPPED["inject_hyperparams"]),
        config(tmp_path, nb_training_epochs=4, metric_to_track_lr="loss"),
        points(16),
        points(8, seed=1),
        schedule=reduce_on_plateau(patience=0, threshold=100.0, threshold_mode="abs"),
        callback=[],
    )
    inner = result.state.opt_state.inner_state[0]
    # The rate of the last epoch, which two epochs without an improvement had lowered.
    assert float(inner.hyperparams["learning_rate"]) == pytest.approx(0.1 * 0.1**2)
    assert result.nb_compilations == 2


@pytest.mark.parametrize("arithmetic", ["exact", "medkit"])
def test_the_optimizer_gets_the_loss_of_all_accumulated_batches(arithmetic):
    def told(rate):
        def update(updates, state, params=None, *, value, **extra):
            updates = jax.tree.map(lambda leaf: -rate * value * leaf, updates)
            return updates, {"value": jnp.asarray(value, jnp.float32)}

        init = lambda params: {"value": jnp.float32(0)}  # noqa: E731
        return optax.GradientTransformationExtraArgs(init, update)

    component = mlp(optimizer=told)
    options = Options(loss_arithmetic=arithmetic)
    items = batches(component, 4)[:3]
    state, step = state_and_step(component, accumulation=3, options=options)
    start = params(state)
    losses = [float(loss_of(component, start, batch)) for batch in items]
    weights = [float(jnp.sum(batch["weights"])) for batch in items]
    means = float(np.mean(losses)), float(np.average(losses, weights=weights))
    assert abs(means[0] - means[1]) > 1e-3
    state, _ = run_steps(state, step, items, flush_last=False)
    received = float(state.opt_state.inner_state[0]["value"])
    assert received == pytest.approx(means[arithmetic == "exact"], rel=1e-5)
    assert float(state.gradients.loss) == 0.0
    state, _ = run_steps(state, step, batches(component, 4)[3:4], flush_last=False)
    assert float(state.gradients.loss) > 0.0


@pytest.mark.parametrize("name", ["polyak_sgd", "inject_hyperparams", "reduce_on_plateau"])
def test_small_batches_accumulated_equal_one_large_batch(name):
    component = mlp(optimizer=WRAPPED[name])
    large, _ = run_steps(*state_and_step(component), batches(component, 12), flush_last=False)
    small, _ = run_steps(
        *state_and_step(component, accumulation=3), batches(component, 4), flush_last=False
    )
    assert int(large.step) == int(small.step) == 2
    assert_close(params(small), params(large), 2e-6)


def test_bfloat16_computes_low_and_stores_high():
    options = Options(precision="bfloat16", weight_decay=0.01, max_grad_norm=1.0)
    states = [
        run_steps(*state_and_step(mlp(optimizer=configure), options=options), batches(mlp(), 8))[0]
        for configure in (WRAPPED["inject_hyperparams"], optax.adamw)
    ]
    assert_close(params(states[0]), params(states[1]), 1e-5)
    assert {leaf.dtype for leaf in jax.tree.leaves(states[0].params)} == {jnp.dtype("float32")}


RUNS = {
    "inject_hyperparams": WRAPPED["inject_hyperparams"],
    "injected": injected,
    "polyak_sgd": WRAPPED["polyak_sgd"],
    "partition": WRAPPED["partition"],
    "prodigy": made("prodigy", contrib.prodigy),
    "schedule_free": WRAPPED["schedule_free"],
    "noisy_sgd": lambda rate: optax.noisy_sgd(rate, key=KEY),
}


QUICK = ["inject_hyperparams", "polyak_sgd", "noisy_sgd"]


class StopBefore(medjax.TrainerCallback):
    def __init__(self, nb_steps):
        self.left = nb_steps

    def on_step_begin(self, step_idx, phase):
        self.left -= phase == "train"
        if self.left < 0:
            raise InterruptedError


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in RUNS if name not in QUICK),
    ],
)
def test_a_resumed_run_is_the_same_bit_for_bit(name, tmp_path):
    def train(folder, *, callback=(), **more):
        return medjax.train(
            mlp(dropout=0.2, optimizer=RUNS[name]),
            config(tmp_path / folder, gradient_accumulation_steps=2),
            points(24, weighted=True),
            schedule=by_step(optax.linear_schedule(0.1, 0.0, 8)),
            options=Options(save_interval_steps=3, weight_decay=0.01, max_grad_norm=1.0),
            callback=list(callback),
            **more,
        )

    uninterrupted = train("whole")
    with pytest.raises(InterruptedError):
        train("parts", callback=[StopBefore(10)])  # within a group of the second epoch
    parts = train("parts", resume="auto")
    assert int(parts.state.step) == 6
    assert same_bits(uninterrupted.state, parts.state)


@pytest.mark.parametrize("name", ["inject_hyperparams", "polyak_sgd"])
def test_several_steps_in_one_call_are_the_same_steps(name, tmp_path):
    states = [
        medjax.train(
            mlp(optimizer=WRAPPED[name]),
            config(tmp_path / str(group)),
            points(24),
            options=Options(steps_per_dispatch=group),
            callback=[],
        ).state
        for group in (1, 3)
    ]
    assert int(states[0].step) == int(states[1].step) == 12
    assert_close(params(states[0]), params(states[1]), 1e-6)
