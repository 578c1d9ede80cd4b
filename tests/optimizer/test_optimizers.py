"""Every optimizer of optax trains as in a plain loop, or is refused by name before training."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib
from optax_optimizers import (
    CONSTANT,
    NEEDS,
    NOT_BY_THEMSELVES,
    REFUSED,
    deviation,
    everything,
    made,
    optimizers_with_rate,
)
from test_sharding import printed
from tiny import config, init_mlp, mlp, one_device, points, same_bits, start_state

import medjax
from medjax import Options, sharding
from medjax.checkpoint.arrays import check_storable, load_arrays, save_arrays
from medjax.optimizer import make_optimizer

QUICK = [
    "adamw",
    "adafactor",
    "dog",
    "muon",
    "prodigy",
    "rprop",
    "inject_hyperparams",
    "inject_hyperparams of a schedule",
    "inject_hyperparams twice",
    "partition",
    "MultiSteps",
    "mechanize",
    "schedule_free",
    "polyak_sgd",
    "sam",
    "a warm-up of its own",
]
ON_EIGHT = [
    "prodigy",
    "mechanize",
    "inject_hyperparams",
    "inject_hyperparams twice",
    "partition",
    "polyak_sgd",
    "sam",
]
OTHERS = [name for name in everything() if name not in QUICK]
PARAMS = jax.eval_shape(init_mlp, jax.random.key(0))["params"]


def check(deviations):
    far = {
        name: (difference, moved)
        for name, (difference, moved) in deviations.items()
        if not difference < 3e-6 + 1e-5 * moved  # acprop moves far, by quotients of small numbers
    }
    assert far == {}
    still = [name for name, (_, moved) in deviations.items() if not moved > 1e-4]
    assert still == [], "nothing was compared"


def test_the_tables_list_every_optimizer_of_optax():
    known = {**optimizers_with_rate(), **everything()}
    for table in (NEEDS, NOT_BY_THEMSELVES, REFUSED, CONSTANT):
        assert set(table) <= set(known)


@pytest.mark.parametrize("name", everything())
def test_every_optimizer_is_accepted(name):
    state = jax.eval_shape(make_optimizer(everything()[name], Options()).init, PARAMS)
    assert "learning_rate" in state.hyperparams


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_by_name_before_training(name, tmp_path):
    component = mlp(optimizer=made(name, optimizers_with_rate()[name]))
    with pytest.raises(ValueError, match=rf"configure_optimizer returned optax\S*{REFUSED[name]}"):
        medjax.train(component, config(tmp_path), points(8), callback=[])


@pytest.mark.parametrize("name", QUICK)
def test_one_device_equals_a_plain_loop(name):
    check({name: deviation(name, one_device())})


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_one_device_equals_a_plain_loop_with_all_other_optimizers(name):
    check({name: deviation(name, one_device())})


@pytest.mark.parametrize("names", [ON_EIGHT, pytest.param([*everything()], marks=pytest.mark.slow)])
def test_eight_devices_equal_a_plain_loop(names):
    result = printed("eight_devices_optimizers.py", *names)
    assert result["devices"] == 8
    assert set(result["deviations"]) == set(names)
    check(result["deviations"])


class NoTransformation:
    def __repr__(self):
        return "torch.optim.AdamW"


def wants_more(rate):
    def update(updates, state, params=None, *, curvature):
        return updates, state

    return optax.GradientTransformationExtraArgs(optax.sgd(rate).init, update)


def grows(rate):
    def update(updates, state, params=None):
        return updates, {**state, "more": jnp.zeros(1)}

    return optax.GradientTransformation(lambda params: {"count": jnp.zeros(())}, update)


def opaque_sam(rate):
    return contrib.sam(optax.sgd(rate), optax.sgd(0.1), opaque_mode=True)


DECAY = Options(weight_decay=0.1)


@pytest.mark.parametrize(
    ("configure", "options", "message"),
    [
        (lambda rate: optax.lookahead(optax.sgd(rate), 2, 0.5), None, r"lookahead.*schedule_free"),
        (opaque_sam, None, r"contrib.sam in opaque mode.*use opaque_mode=False"),
        (
            lambda rate: optax.chain(optax.sgd(rate), optax.scale_by_backtracking_linesearch(5)),
            None,
            r"backtracking_linesearch.*optax.polyak_sgd",
        ),
        (lambda rate: optax.MultiSteps(optax.sgd(rate), 2), DECAY, r"gradient_accumulation_steps"),
        (
            lambda rate: optax.adam(optax.warmup_cosine_decay_schedule(0.0, rate, 5, 20)),
            None,
            r"uses the value of the learning rate.*train\(schedule=",
        ),
        (lambda rate: NoTransformation(), None, r"returned torch.optim.AdamW; expected an optax"),
        (wants_more, None, r"cannot be run: TypeError: .*curvature.*needs no more"),
        (grows, None, r"returned state with a different structure"),
    ],
    ids=["lookahead", "sam", "linesearch", "MultiSteps", "value", "torch", "argument", "grows"],
)
def test_other_faults_are_named_before_training(configure, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        medjax.train(
            mlp(optimizer=configure), config(tmp_path), points(8), callback=[], options=options
        )


def test_dtypes_that_the_first_update_changes_are_settled_before_it(tmp_path):
    def configure(rate):
        def init(params):
            return {"seen": 0, "norm": jnp.zeros((), jnp.int32)}

        def update(updates, state, params=None):
            state = {"seen": state["seen"] + 1, "norm": state["norm"] + optax.tree.norm(updates)}
            return jax.tree.map(lambda leaf: -rate * leaf, updates), state

        return optax.GradientTransformation(init, update)

    result = medjax.train(mlp(optimizer=configure), config(tmp_path), points(8), callback=[])
    state = result.state.opt_state.inner_state[0]
    assert (int(state["seen"]), state["norm"].dtype) == (4, jnp.float32)
    assert float(state["norm"]) > 0


@pytest.mark.parametrize("name", everything())
def test_every_optimizer_state_survives_a_checkpoint(name, tmp_path):
    state = start_state(mlp(optimizer=everything()[name])).opt_state
    check_storable(state)
    save_arrays(tmp_path / "state", state)()
    layout = sharding.state_shardings(state, one_device())
    read = load_arrays(tmp_path / "state", state, layout)
    assert jax.tree.structure(read) == jax.tree.structure(state)
    assert same_bits(read, state)
