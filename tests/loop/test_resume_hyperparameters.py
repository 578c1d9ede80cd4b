"""Resuming with other hyperparameters of an optimizer that keeps them in its state."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from resumed_runs import Dies, run
from tiny import mlp, one_device, same_bits

from medjax import Options
from medjax.checkpoint.progress import Progress
from medjax.loop.resume import HYPERPARAMETERS, with_settings
from medjax.optimizer import configured_hyperparameters
from medjax.state import create_state, make_optimizer

PARAMS = {"kernel": jnp.full((2, 2), 3.0)}


def plain(weight_decay):
    return lambda rate: optax.adamw(rate, weight_decay=weight_decay)


def injected(weight_decay):
    return lambda rate: optax.inject_hyperparams(optax.adamw)(rate, weight_decay=weight_decay)


def in_a_part(inner):
    def configure(weight_decay):
        def labels(params):
            return {name: "a" if name.startswith("w") else "b" for name in params}

        return lambda rate: optax.partition(
            {"a": inner(weight_decay)(0.1 * rate), "b": optax.adam(rate)}, labels
        )

    return configure


FORMS = {"alone": (injected, plain), "in a part": (in_a_part(injected), in_a_part(plain))}


@pytest.mark.parametrize("form", FORMS)
def test_a_changed_hyperparameter_applies_as_in_the_plain_optimizer(form, tmp_path, caplog):
    def resumed(folder, configure, options):
        component = mlp(optimizer=configure(0.5))
        with pytest.raises(RuntimeError, match="died"):
            run(
                tmp_path / folder,
                epochs=2,
                component=component,
                callback=Dies(2, 3),
                options={"save_interval_steps": 2},
            )
        component = mlp(optimizer=configure(0.0))
        again = {"epochs": 2, "component": component, "resume": "auto", "options": options}
        return run(tmp_path / folder, **again).state

    # Clipping adds a part to the state, so the hyperparameters have another place in it.
    options = {"max_grad_norm": 10.0}
    with caplog.at_level(logging.WARNING, "medjax"):
        found, expected = (
            resumed(str(number), configure, options) for number, configure in enumerate(FORMS[form])
        )
    for value, wanted in zip(
        jax.tree.leaves(found.params), jax.tree.leaves(expected.params), strict=True
    ):
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-6)
    told = [record.getMessage() for record in caplog.records if "hyperp" in record.getMessage()]
    assert len(told) == 1
    assert "weight_decay was 0.5 and is 0 now" in told[0]


def test_what_was_set_in_the_state_stays_unless_the_configuration_changes():
    component = mlp(optimizer=injected(0.5))
    state = create_state(component, make_optimizer(component), seed=0, learning_rate=0.1)
    inner = state.opt_state.inner_state[0]
    inner.hyperparams["weight_decay"] = jnp.float32(0.25)
    settings = {HYPERPARAMETERS: {"weight_decay": 0.5, "b1": 0.9, "eps": "inf"}}
    saved = Progress(seed=0, data={}, schedule={"learning_rate": 0.1}, settings=settings)
    assert same_bits(with_settings(state, saved, saved, one_device()), state)
    for before, after in ({}, {"weight_decay": 0.1}), ({"b1": 0.9}, {"weight_decay": 0.1}):
        pair = [saved._replace(settings={HYPERPARAMETERS: each}) for each in (before, after)]
        assert same_bits(with_settings(state, *pair, one_device()), state)
    assert same_bits(with_settings(state, saved._replace(settings={}), saved, one_device()), state)

    changed = {HYPERPARAMETERS: {"weight_decay": 0.5, "b1": 0.8, "eps": 1.0}}
    after = with_settings(state, saved, saved._replace(settings=changed), one_device())
    numbers = after.opt_state.inner_state[0].hyperparams
    kept = {n: float(v) for n, v in inner.hyperparams.items() if n not in {"b1", "eps"}}
    assert {n: float(v) for n, v in numbers.items()} == kept | {"b1": np.float32(0.8), "eps": 1.0}
    assert {value.dtype for value in numbers.values()} == {jnp.dtype("float32")}


def test_only_numbers_that_the_user_has_set_are_recorded():
    def build(decay, momentum, offset, scheduled, limit, mask):
        del decay, momentum, offset, scheduled, limit, mask
        return optax.inject_hyperparams(optax.scale_by_rms)(decay=0.75)

    def recorded(configure, options=None):
        optimizer = make_optimizer(mlp(optimizer=configure), options)
        state = jax.eval_shape(optimizer.init, PARAMS)
        return configured_hyperparameters(optimizer, PARAMS, state)

    def configure(rate):
        return optax.chain(
            optax.inject_hyperparams(build)(
                decay=0.1 * rate,
                momentum=jnp.float32(0.5),
                offset=3,
                scheduled=lambda step: 0.9 + step,
                limit=float("inf"),
                mask=jnp.ones(2),
            ),
            optax.scale(-rate),
        )

    inner = {"[0].inner_state.decay": 0.75, "[0].inner_state.eps": np.float32(1e-8)}
    found = recorded(configure, Options(max_grad_norm=1.0))
    assert {name: found[name] for name in inner} == inner
    outer = {n: v for n, v in found.items() if "inner" not in n}
    assert outer == {"[0].momentum": 0.5, "[0].offset": 3, "[0].limit": "inf"}
    assert recorded(optax.adam) == {}
