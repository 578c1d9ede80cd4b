"""Hyperparameters at run time, refusals, and the transformation within medjax's own step."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from optimizer_pairs import Pair, make_model, parameter_names, to_arrays
from torch.optim import SGD, Adam, AdamW, RMSprop

from medjax.component import TrainableComponent
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.schedules import constant
from medjax.sharding import make_mesh, put, put_batch, state_shardings
from medjax.state import create_state, make_optimizer
from medjax.step import make_train_step
from medjax_torch.optimizers import (
    find_state,
    make_transformation,
    plan_groups,
    read_hyperparams,
    set_hyperparams,
)


@pytest.mark.parametrize(
    ("optimizer", "options", "changes"),
    [
        (AdamW, {}, {"lr": 0.1, "betas": (0.5, 0.99), "weight_decay": 0.3, "eps": 1e-3}),
        (SGD, {"momentum": 0.9}, {"lr": 0.03, "momentum": 0.5, "dampening": 0.2}),
        (RMSprop, {"momentum": 0.9}, {"momentum": 0.5, "alpha": 0.9}),
        # Tensors, as in a compiled torch optimizer.
        (Adam, {"lr": torch.tensor(0.01), "foreach": False}, {"lr": torch.tensor(0.1)}),
    ],
)
def test_changed_hyperparameters_take_effect_without_compilation(optimizer, options, changes):
    pair = Pair(lambda model: optimizer(model.parameters(), **{"lr": 0.01, **options}))
    pair.run(3)
    for name, value in changes.items():
        pair.optimizer.param_groups[0][name] = value
        pair.run(3)
    assert pair.update.nb_compilations == 1
    assert pair.difference() < 5e-7


@pytest.mark.parametrize(
    ("optimizer", "momenta"), [(SGD, (0.0, 0.9, 0.0, 0.5)), (RMSprop, (0.9, 0.0, 0.5))]
)
def test_momentum_may_be_zero_temporarily(optimizer, momenta):
    pair = Pair(lambda model: optimizer(model.parameters(), lr=0.01, momentum=0.9))
    for momentum in momenta:
        pair.optimizer.param_groups[0]["momentum"] = momentum
        pair.run(2)
    assert pair.update.nb_compilations == 1
    assert pair.difference() < 5e-7


@pytest.mark.parametrize(
    ("optimizer", "name", "value", "message"),
    [
        (SGD, "momentum", 0.9, "'momentum' of the optimizer's group 0 is on; expected off"),
        (AdamW, "amsgrad", True, "'amsgrad' of the optimizer's group 0 is on; expected off"),
        (AdamW, "decoupled_weight_decay", False, "group 0 is off; expected on"),
    ],
)
def test_a_change_of_a_compiled_option_is_refused(optimizer, name, value, message):
    model = make_model()
    torch_optimizer = optimizer(model.parameters(), lr=0.1)
    plan = plan_groups(torch_optimizer, parameter_names(model))
    torch_optimizer.param_groups[0][name] = value
    with pytest.raises(ValueError, match=message):
        read_hyperparams(torch_optimizer, plan)


def test_groups_added_later_are_refused():
    model = make_model()
    optimizer = SGD([model[0].weight], lr=0.1)
    plan = plan_groups(optimizer, parameter_names(model))
    optimizer.add_param_group({"params": [model[2].weight]})
    with pytest.raises(ValueError, match="has 2 parameter groups; expected 1"):
        read_hyperparams(optimizer, plan)


@pytest.mark.parametrize("optimizer", [torch.optim.ASGD, torch.optim.LBFGS])
def test_classes_without_a_rule_are_named(optimizer):
    model = make_model()
    message = rf"\.{optimizer.__name__}, which has no JAX rule.*AdamW"
    with pytest.raises(ValueError, match=message):
        plan_groups(optimizer(model.parameters()), parameter_names(model))


def test_step_hooks_are_refused():
    model = make_model()
    optimizer = AdamW(model.parameters())
    optimizer.register_step_pre_hook(lambda *args: None)
    with pytest.raises(ValueError, match="AdamW has step hooks"):
        plan_groups(optimizer, parameter_names(model))


def test_unnamed_and_complex_parameters_are_refused():
    stray = torch.nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"parameter 0 .* group 0, of shape \(2, 3\)"):
        plan_groups(SGD([stray]), {})
    phase = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"\(phase\) is complex"):
        plan_groups(SGD([phase]), {phase: "phase"})


def transformation_of(optimizer, model, absent=()):
    plan = plan_groups(optimizer, parameter_names(model))
    return make_transformation(plan, read_hyperparams(optimizer, plan), absent)


def test_absent_parameters_do_not_change_although_jax_gives_them_zeros():
    model = make_model()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    transformation = transformation_of(optimizer, model, absent={"spare.weight"})
    params = to_arrays(dict(model.named_parameters()))
    zeros = {name: jnp.zeros_like(array) for name, array in params.items()}
    updates, state = transformation.update(zeros, transformation.init(params), params)
    assert state.moments["spare.weight"]["step"] == 0
    assert state.moments["2.weight"]["step"] == 1
    assert not updates["spare.weight"].any()
    assert updates["2.weight"].any()


def test_params_without_an_updated_parameter_are_refused():
    model = make_model()
    transformation = transformation_of(SGD(model.parameters()), model)
    with pytest.raises(ValueError, match=r"the optimizer updates 0\.weight, 2\.bias"):
        transformation.init({"2.weight": jnp.zeros((4, 4))})
    params = to_arrays(dict(model.named_parameters()))
    state = transformation.init(params)
    with pytest.raises(ValueError, match="needs params"):
        transformation.update(params, state)


def test_the_state_is_found_inside_a_chain():
    model = make_model()
    optimizer = SGD(model.parameters(), lr=0.1)
    chain = optax.chain(optax.clip_by_global_norm(1.0), transformation_of(optimizer, model))
    state = chain.init(to_arrays(dict(model.named_parameters())))
    hyperparams = find_state(state).hyperparams
    changed = set_hyperparams(state, ({**hyperparams[0], "lr": np.float32(7)},))
    assert find_state(changed).hyperparams[0]["lr"] == 7
    with pytest.raises(ValueError, match="has 0 states"):
        find_state(optax.sgd(0.1).init({}))


def linear_component(transformation, params):
    def forward(variables, batch, key, *, return_loss, eval_mode):
        weights = variables["params"]
        errors = (batch["x"] @ weights["weight"].T + weights["bias"] - batch["y"]) ** 2
        return {}, Mean(errors.sum(), jnp.asarray(errors.size, jnp.float32)), {}

    def unused(*args):
        raise AssertionError

    return TrainableComponent(
        init=lambda key: {"params": params},
        preprocess=unused,
        collate=unused,
        forward=forward,
        configure_optimizer=lambda learning_rate: transformation,
        save=unused,
        load=unused,
    )


def test_medjax_step_follows_torch_and_compiles_once():
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=0.1, weight_decay=0.2)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    plan = plan_groups(optimizer, parameter_names(model))
    transformation = make_transformation(plan, read_hyperparams(optimizer, plan))
    params = to_arrays(dict(model.named_parameters()))
    component = linear_component(transformation, params)
    options, mesh = Options(), make_mesh()
    tx = make_optimizer(component, options)
    state = create_state(component, tx, seed=0, learning_rate=0.1, accumulates=False)
    state = put(state, state_shardings(state, mesh))
    step = make_train_step(state, schedule=constant(), options=options, accumulation=1, mesh=mesh)
    generator = torch.Generator().manual_seed(1)
    for index in range(6):
        x, y = (torch.randn(8, size, generator=generator) for size in (5, 2))
        if index != 1:  # the first scheduler step is skipped below
            hyperparams = read_hyperparams(optimizer, plan)
            state = state.replace(opt_state=set_hyperparams(state.opt_state, hyperparams))
        batch = {"x": x.numpy(), "y": y.numpy(), "row_mask": np.ones(8, np.float32)}
        state, _ = step(state, put_batch(batch, mesh))
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        if index:
            scheduler.step()
    assert step.nb_compilations == 1
    for name, expected in to_arrays(dict(model.named_parameters())).items():
        np.testing.assert_allclose(state.params[name], expected, atol=1e-6)
