"""Parameters that the optimizer freezes are recognised, and clipping and decay ignore them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax_optimizers import RATE, WRAPPED, loss_of, trained
from stepping import POINTS, assert_close, batches
from tiny import config, init_mlp, mlp, one_device, start_state

import medjax
from medjax import Options
from medjax.optimizer.probe import probe

PARAMS = jax.eval_shape(init_mlp, jax.random.key(0))["params"]
BOTTOM = {"w1": True, "b1": True, "w2": False, "b2": False}
TOP = {name: not frozen for name, frozen in BOTTOM.items()}


def frozen(configure, params=PARAMS):
    paths = probe(configure, Options(), params, params).frozen
    return {name.strip("[]'") for name in paths}


def partition(rate):
    parts = {"train": optax.adamw(rate), "freeze": optax.set_to_zero()}
    return optax.partition(parts, {n: "freeze" if f else "train" for n, f in BOTTOM.items()})


def zero_then_adam(rate):
    return optax.chain(optax.freeze(BOTTOM), optax.adam(rate))


def scaled_by_zero(rate):
    scales = {name: 0.0 if is_frozen else 1.0 for name, is_frozen in BOTTOM.items()}

    def update(updates, state, params=None):
        return jax.tree.map(lambda scale, leaf: scale * leaf, scales, updates), state

    scale = optax.GradientTransformation(lambda params: optax.EmptyState(), update)
    return optax.chain(optax.sgd(rate, momentum=0.9), scale)


FREEZES = {
    "partition": partition,
    "set_to_zero last": lambda rate: optax.chain(
        optax.adamw(rate), optax.masked(optax.set_to_zero(), BOTTOM)
    ),
    "set_to_zero first": zero_then_adam,
    "set_to_zero before the rate": lambda rate: optax.chain(
        optax.scale_by_adam(), optax.freeze(BOTTOM), optax.scale(-rate)
    ),
    "selective_transform": lambda rate: optax.selective_transform(
        optax.sgd(rate, 0.9), freeze_mask=BOTTOM
    ),
    "a factor of zero": scaled_by_zero,
    "inject_hyperparams": lambda rate: optax.inject_hyperparams(partition)(rate=rate),
    "apply_if_finite": lambda rate: optax.apply_if_finite(partition(rate), 3),
    "MultiSteps": lambda rate: optax.MultiSteps(partition(rate), 2),
}


@pytest.mark.parametrize("name", FREEZES)
def test_parameters_with_zero_updates_are_recognised_as_frozen(name):
    assert frozen(FREEZES[name]) == {"w1", "b1"}


def first_update_is_zero(rate):
    warm_up = optax.linear_schedule(0.0, 1.0, 10)
    return optax.chain(optax.adam(rate), optax.scale_by_schedule(warm_up))


def zero_until_step_3(rate):
    def update(updates, count, params=None):
        updates = jax.tree.map(lambda leaf: jnp.where(count < 3, 0.0, -rate * leaf), updates)
        return updates, count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def two_steps_late(rate):
    def init(params):
        return (optax.tree.zeros_like(params),) * 2

    def update(updates, state, params=None):
        return optax.tree.scale(-rate, state[0]), (state[1], updates)

    return optax.GradientTransformation(init, update)


def set_by_the_host(rate):
    return optax.chain(optax.inject_hyperparams(optax.scale)(step_size=0.0), optax.sgd(rate))


@pytest.mark.parametrize(
    "configure",
    [
        first_update_is_zero,
        zero_until_step_3,
        two_steps_late,
        set_by_the_host,
        *(configure for name, configure in WRAPPED.items() if name not in FREEZES | {"masked": 0}),
    ],
)
def test_updates_that_are_zero_only_at_first_are_not_frozen(configure):
    assert frozen(configure) == set()


def test_masked_alone_freezes_nothing():
    # What the mask leaves out is not zero: optax hands the gradient on as it is.
    assert frozen(lambda rate: optax.masked(optax.sgd(rate), TOP)) == set()


@pytest.mark.parametrize(
    ("configure", "expected"),
    [
        (lambda rate: optax.set_to_zero(), 1),
        (lambda rate: optax.selective_transform(optax.adam(rate), freeze_mask=lambda path: 0), 1),
        (partition, 0),
        (first_update_is_zero, 0),
        (set_by_the_host, 0),
    ],
)
def test_a_run_that_updates_no_parameter_is_warned_of(configure, expected, tmp_path, caplog):
    run = config(tmp_path, nb_training_epochs=1)
    component = mlp(optimizer=configure)
    for resume in (None, "auto"):
        caplog.clear()
        medjax.train(component, run, POINTS, callback=[], resume=resume)
        told = [each for each in caplog.records if "updates no parameter" in each.getMessage()]
        assert len(told) == expected


def by_hand(component, items, *, frozen, clip, decay):
    """Return the parameters after steps of plain SGD, with clipping and decay of the unfrozen."""
    params = jax.device_get(start_state(component).params)
    for batch in items:
        gradients = jax.device_get(jax.grad(loss_of, argnums=1)(component, params, batch))
        counted = {name: leaf for name, leaf in gradients.items() if name not in frozen}
        norm = np.sqrt(sum(np.sum(leaf**2) for leaf in counted.values()))
        for name, leaf in counted.items():
            factor = min(1.0, clip / norm) if clip else 1.0
            decayed = RATE * decay * params[name] * (leaf.ndim > 1)
            params[name] = params[name] - RATE * factor * leaf - decayed
    return params


@pytest.mark.parametrize(
    ("clip", "decay"), [(0.2, 0.0), (None, 0.5), (0.2, 0.5)], ids=["clip", "decay", "both"]
)
@pytest.mark.parametrize("name", ["selective", "first", "none"])
def test_clipping_and_decay_ignore_frozen_parameters(name, clip, decay):
    configure = {
        "selective": lambda rate: optax.selective_transform(optax.sgd(rate), freeze_mask=BOTTOM),
        "first": lambda rate: optax.chain(optax.freeze(BOTTOM), optax.sgd(rate)),
        "none": optax.sgd,
    }[name]
    component = mlp(optimizer=configure)
    still = set() if name == "none" else {"w1", "b1"}
    items = batches(component, 8, POINTS)
    options = Options(max_grad_norm=clip, weight_decay=decay)
    params = trained(component, items, one_device(), options=options)
    assert_close(params, by_hand(component, items, frozen=still, clip=clip, decay=decay), 1e-5)
    start = jax.device_get(start_state(component).params)
    same = {leaf for leaf in start if np.array_equal(start[leaf], params[leaf])}
    assert same == still
    # It does matter: clipping over all parameters, or decay of all, gives something else.
    if still:
        other = by_hand(component, items, frozen=set(), clip=clip, decay=decay)
        assert np.max(np.abs(other["w2"] - params["w2"])) > 1e-4
