"""Repeated train() calls in one process leak nothing and compile nothing twice."""

from __future__ import annotations

import copy
import gc
import weakref

import jax
import numpy as np
import optax
import pytest
from tiny import config, init_mlp, mlp, points

import medjax
from medjax import Options
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
