"""Every rule compared with torch's own optimizer, with the same gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from optimizer_pairs import Pair, fill_gradients, make_model
from torch.optim import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    RAdam,
    RMSprop,
    SparseAdam,
)

from medjax_torch.optimizers.decays import (
    average_length,
    bias_correction,
    make_decay,
    rectification,
)

CASES = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "weight_decay": 0.1}),
    (SGD, {"lr": 0.1, "maximize": True}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.4}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.999, "maximize": True}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    (Adam, {"lr": 0.01}),
    (Adam, {"lr": 0.01, "weight_decay": 0.1}),
    (Adam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (Adam, {"lr": 0.01, "amsgrad": True}),
    (Adam, {"lr": 0.01, "amsgrad": True, "maximize": True, "weight_decay": 0.1}),
    (Adam, {"lr": 0.01, "betas": (0.0, 0.0), "eps": 1e-3}),
    (Adam, {"lr": 0.01, "betas": (0.4, 0.9999)}),
    (Adam, {"lr": torch.tensor(0.01), "foreach": False}),
    (AdamW, {"lr": 0.01}),
    (AdamW, {"lr": 0.01, "weight_decay": 0.3, "amsgrad": True}),
    (AdamW, {"lr": 0.01, "maximize": True, "eps": 1e-6}),
    (AdamW, {"lr": 0.01, "fused": True}),
    (AdamW, {"lr": 0.01, "foreach": True}),
    (Adamax, {"lr": 0.01}),
    (Adamax, {"lr": 0.01, "weight_decay": 0.1, "maximize": True}),
    (NAdam, {"lr": 0.01}),
    (NAdam, {"lr": 0.01, "momentum_decay": 0.1, "weight_decay": 0.1}),
    (NAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    (RAdam, {"lr": 0.01}),
    (RAdam, {"lr": 0.01, "betas": (0.9, 0.6), "weight_decay": 0.1}),
    (RAdam, {"lr": 0.01, "betas": (0.8, 0.7), "weight_decay": 0.1, "maximize": True}),
    (RAdam, {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (RMSprop, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "alpha": 0.9, "weight_decay": 0.1, "maximize": True}),
    (RMSprop, {"lr": 0.01, "momentum": 0.9}),
    (RMSprop, {"lr": 0.01, "centered": True}),
    (RMSprop, {"lr": 0.01, "centered": True, "momentum": 0.9}),
    (Adagrad, {"lr": 0.1}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "weight_decay": 0.1}),
    (Adagrad, {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3, "maximize": True}),
    (Adadelta, {"lr": 1.0}),
    (Adadelta, {"lr": 0.5, "rho": 0.7, "eps": 1e-5, "weight_decay": 0.1, "maximize": True}),
]


def case_id(case):
    optimizer, options = case
    return "-".join([optimizer.__name__, *(f"{key}={value}" for key, value in options.items())])


@pytest.mark.parametrize("case", CASES, ids=case_id)
def test_equals_torch_after_20_steps(case):
    optimizer, options = case
    pair = Pair(lambda model: optimizer(model.parameters(), **options))
    pair.run(20)
    assert pair.movement() > 0.01
    assert pair.difference() < 1e-6 * max(1.0, pair.movement())
    assert pair.update.nb_compilations == 1


def fill_zeros(model, step):
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)


def test_a_weak_decay_is_rounded_as_torch_rounds_it():
    # In float32, 1 - 1e-7 is 1 - 1.2e-7: a decay a fifth stronger than requested.
    pair = Pair(lambda model: AdamW(model.parameters(), lr=1e-5), fill=fill_zeros)
    pair.run(100)
    assert pair.movement() > 1e-6
    assert pair.difference() == 0.0


class Lookup(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(12, 3, sparse=True)


def fill_rows(model, step):
    # Rows 9 to 11 never have a gradient, the others in some steps.
    rows = torch.tensor([[0, step % 3, 0], [3 + step % 4, 7, 8]])
    model.zero_grad()
    ((model.table(rows) - 1) ** 4).sum().backward()


@pytest.mark.parametrize("options", [{}, {"maximize": True, "betas": (0.8, 0.9)}])
def test_sparse_adam_moves_only_the_rows_with_a_gradient(options):
    pair = Pair(
        lambda model: SparseAdam(model.parameters(), lr=0.01, **options), Lookup(), fill_rows
    )
    pair.run(20)
    assert pair.movement() > 0.01
    assert pair.difference() < 5e-7
    np.testing.assert_array_equal(pair.params["table.weight"][9:], pair.start["table.weight"][9:])


@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled")
@pytest.mark.parametrize("optimizer", [SGD, Adagrad])
def test_dense_rules_take_torchs_sparse_gradients(optimizer):
    pair = Pair(lambda model: optimizer(model.parameters(), lr=0.01), Lookup(), fill_rows)
    pair.run(10)
    assert pair.difference() < 5e-7


def test_groups_have_their_own_hyperparameters_and_options():
    def make_optimizer(model):
        groups = [
            {"params": model[0].parameters(), "lr": 0.03, "weight_decay": 0.0, "amsgrad": True},
            {"params": [model[2].weight], "betas": (0.5, 0.9)},
            {"params": [model[2].bias], "maximize": True},
        ]
        return AdamW(groups, lr=0.01, weight_decay=0.2)

    pair = Pair(make_optimizer)
    pair.run(20)
    assert pair.difference() < 5e-7
    assert pair.movement() > 0.1


@pytest.mark.parametrize("optimizer", [SGD, AdamW, Adagrad, NAdam])
def test_a_parameter_without_gradient_and_its_moments_do_not_change(optimizer):
    pair = Pair(lambda model: optimizer(model.parameters(), lr=0.1, weight_decay=0.1))
    pair.run(3)
    np.testing.assert_array_equal(pair.params["spare.weight"], pair.start["spare.weight"])
    assert pair.opt_state.moments["spare.weight"]["step"] == 0
    assert pair.opt_state.moments["0.weight"]["step"] == 3


def test_each_parameter_counts_its_own_updates():
    def fill(model, step):
        fill_gradients(model, step)
        if step % 3 == 0:
            model[0].weight.grad = None

    pair = Pair(lambda model: RAdam(model.parameters(), lr=0.05, weight_decay=0.1), fill=fill)
    pair.run(12)
    assert pair.difference() < 5e-7
    assert pair.opt_state.moments["0.weight"]["step"] == 8


def test_bfloat16_parameters_keep_bfloat16_moments():
    model = make_model().to(torch.bfloat16)

    def fill(model, step):
        for place, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(100 * step + place)
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(torch.bfloat16)

    pair = Pair(lambda model: AdamW(model.parameters(), lr=0.01), model, fill)
    pair.run(10)
    dtypes = {name: slot.dtype for name, slot in pair.opt_state.moments["0.weight"].items()}
    assert dtypes == {"step": jnp.int32, "exp_avg": jnp.bfloat16, "exp_avg_sq": jnp.bfloat16}
    assert pair.params["0.weight"].dtype == jnp.bfloat16
    assert pair.difference() < 0.02


STEPS = np.unique(np.geomspace(1, 1_000_000, 400).astype(np.int32))


@pytest.mark.parametrize("rate", [0.0, 0.5, 0.9, 0.999, 0.9999])
def test_bias_corrections_are_accurate_at_any_step(rate):
    corrections = jax.jit(bias_correction)(make_decay(rate), jnp.asarray(STEPS))
    expected = [-math.expm1(step * math.log(rate)) if rate else 1.0 for step in STEPS.tolist()]
    np.testing.assert_allclose(corrections, expected, rtol=3e-7)


@pytest.mark.parametrize("rate", [0.8, 0.99, 0.999, 0.9999])
def test_the_rectification_of_radam_is_accurate_at_any_step(rate):
    def both(step):
        length = average_length(make_decay(rate), step)
        return length, rectification(make_decay(rate), length)

    lengths, factors = jax.jit(both)(jnp.asarray(STEPS))
    limit = 2 / (1 - rate) - 1
    power = rate ** STEPS.astype(np.float64)
    expected = limit - 2 * STEPS * power / (1 - power)
    np.testing.assert_allclose(lengths, expected, rtol=1e-6)
    rho = expected[expected > 5]
    squares = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
    np.testing.assert_allclose(factors[expected > 5], np.sqrt(squares), rtol=2e-6)
