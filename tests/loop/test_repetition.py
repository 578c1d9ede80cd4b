"""Repeated train() calls in one process leak nothing and compile nothing twice."""

from __future__ import annotations

import copy
import gc
import sys
import weakref

import jax
import numpy as np
import optax
import pytest
from tiny import config, init_mlp, mlp, points

import medjax
from medjax import Mean, Options
from medjax.runtime.lent import Lent, lent, owned
from medjax.state import create_state, make_optimizer


class Owner:
    """What a component's functions close over: a network of the tiny kind."""

    def __init__(self) -> None:
        self.parts = mlp()

    def init(self, key):
        return init_mlp(key)

    def forward(self, *args, **kwargs):
        return self.parts.forward(*args, **kwargs)

    def configure_optimizer(self, rate):
        return self.parts.configure_optimizer(rate)


def component(owner: Owner) -> medjax.TrainableComponent:
    return owner.parts._replace(
        init=owner.init,
        forward=owner.forward,
        configure_optimizer=owner.configure_optimizer,
    )


def test_a_component_goes_when_its_last_run_is_over(tmp_path):
    owners = []
    for number in range(10):
        owner = Owner()
        owners.append(weakref.ref(owner))
        medjax.train(
            component(owner),
            config(tmp_path / str(number), nb_training_epochs=1),
            points(16),
            points(8),
            callback=[],
            options=Options(max_grad_norm=1.0, weight_decay=0.1),
        )
        del owner
    gc.collect()
    assert [reference() for reference in owners] == [None] * 10


def test_a_result_keeps_what_its_state_calls(tmp_path):
    """The functions live as long as the state that train returned, and no longer."""
    owner = Owner()
    gone = weakref.ref(owner)
    result = medjax.train(
        component(owner), config(tmp_path, nb_training_epochs=1), points(16), callback=[]
    )
    del owner
    gc.collect()
    gradients = jax.tree.map(np.ones_like, result.state.params)
    moved = result.state.apply_gradients(grads=gradients).apply_gradients(grads=gradients)
    assert int(moved.step) == int(result.state.step) + 2
    assert gone() is not None
    del result, moved
    gc.collect()
    assert gone() is None


def test_the_second_run_traces_and_compiles_nothing(tmp_path, traces):
    parts = mlp()

    def train(name, count=40, **options):
        traces.clear()
        result = medjax.train(
            parts,
            config(tmp_path / name, nb_training_epochs=2, gradient_accumulation_steps=2),
            points(count),
            points(20),
            schedule=schedule,
            callback=[],
            options=Options(**options),
        )
        return result, list(traces)

    schedule = optax.linear_schedule(0.1, 0.0, 100)
    options = {"max_grad_norm": 1.0, "warmup_steps": 3}
    first, _ = train("first", **options)
    assert first.nb_compilations > 0
    second, seen = train("second", **options)
    assert seen == []
    assert second.compilations == []
    assert second.history == first.history
    changed, seen = train("changed", warmup_steps=3)  # without clipping it is another program
    assert seen
    assert changed.history != first.history


def test_a_forward_that_reads_another_value_is_traced_anew(tmp_path):
    scale = [1.0]
    plain = mlp()

    def forward(*args, **kwargs):
        outputs, loss, collections = plain.forward(*args, **kwargs)
        return outputs, medjax.Mean(loss.total * scale[0], loss.weight), collections

    parts = plain._replace(forward=forward)

    def loss(name):
        setting = config(tmp_path / name, nb_training_epochs=1, learning_rate=0.0)
        return medjax.train(parts, setting, points(16), callback=[]).history[0]["train"]["loss"]

    before = loss("a")
    scale[0] = 2.0
    assert loss("b") == 2 * before
    assert parts.__dict__
    assert copy.copy(parts).__dict__ == {}  # the programs go into no copy and no pickle


def test_a_schedule_that_reads_another_value_is_traced_anew(tmp_path):
    parts, rate = mlp(), [0.1]

    def schedule(step):
        return rate[0]

    def loss(name):
        setting = config(tmp_path / name, nb_training_epochs=2)
        result = medjax.train(parts, setting, points(16), schedule=schedule, callback=[])
        return result.history[-1]["train"]["loss"]

    before = loss("a")
    assert loss("b") == before
    rate[0] = 0.0
    assert loss("c") != before


def test_a_state_is_a_tree_of_one_structure_whoever_made_it():
    parts = mlp()
    optimizer = make_optimizer(parts, Options())
    states = [
        create_state(parts, optimizer, seed=seed, learning_rate=0.1, accumulates=False)
        for seed in (0, 1)
    ]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    assert owned(states[0].apply_fn) is parts.forward
    other = make_optimizer(parts, Options())
    third = create_state(parts, other, seed=0, learning_rate=0.1, accumulates=False)
    assert jax.tree.structure(third) != jax.tree.structure(states[0])


def test_a_stand_in_says_that_its_function_is_gone():
    def doubled(x):
        return 2 * x

    stand_in = lent(doubled)
    assert isinstance(stand_in, Lent)
    assert stand_in(4) == 8
    assert lent(stand_in) is stand_in
    before = hash(stand_in)
    del doubled
    with pytest.raises(ReferenceError, match=r"doubled of this state no longer exists.*keep the"):
        stand_in(4)
    assert hash(stand_in) == before
    assert lent(len)([1, 2]) == 2


scale = [1.0]


def weigh(x):
    return x * scale[0]


JITTED = {"jit": jax.jit(weigh), "checkpoint": jax.checkpoint(weigh)}


def scaled(weighed):
    """Return a component whose loss is weighed by a function of its own."""
    parts = mlp()

    def forward(*args, **kwargs):
        outputs, loss, collections = parts.forward(*args, **kwargs)
        return outputs, Mean(weighed(loss.total), loss.weight), collections

    return parts._replace(forward=forward)


@pytest.mark.parametrize("name", JITTED)
@pytest.mark.parametrize("is_same", [True, False])
def test_a_value_that_a_jitted_function_reads_may_change(tmp_path, monkeypatch, name, is_same):
    monkeypatch.setattr(sys.modules[__name__], "scale", [1.0])
    made = scaled(JITTED[name])

    def losses(folder):
        settings = config(tmp_path / folder, nb_training_epochs=1, learning_rate=0.0)
        used = made if is_same else scaled(JITTED[name])
        (row,) = medjax.train(used, settings, points(16), points(8), callback=[]).history
        return [row["train"]["loss"], row["eval"]["loss"]]

    first = losses("first")
    scale[0] = 3.0
    np.testing.assert_allclose(losses("second"), 3 * np.array(first), rtol=1e-6)


def test_an_evaluation_notices_what_a_jitted_function_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "scale", [1.0])
    made = scaled(JITTED["jit"])
    variables = made.init(jax.random.key(0))

    def loss():
        return medjax.evaluate(made, variables, config(tmp_path), points(16))["loss"]

    first = loss()
    scale[0] = 3.0
    assert loss() == pytest.approx(3 * first)
