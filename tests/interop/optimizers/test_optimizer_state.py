"""Moments written to torch's optimizer and read back: either library continues the other's run."""

import io

import numpy as np
import pytest
import torch
from optimizer_pairs import Pair, fill_gradients, make_model, parameter_names, to_arrays
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

from medjax_torch.optimizers import plan_groups, read_moments, write_moments

CASES = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    (Adam, {"lr": 0.01, "amsgrad": True}),
    (AdamW, {"lr": 0.01}),
    (Adamax, {"lr": 0.01}),
    (NAdam, {"lr": 0.01}),
    (RAdam, {"lr": 0.01}),
    (RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    (Adagrad, {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    (Adadelta, {"lr": 1.0}),
]
by_class = pytest.mark.parametrize(
    ("optimizer", "options"), CASES, ids=[f"{case[0].__name__}{len(case[1])}" for case in CASES]
)


def through_a_file(state_dict):
    """Return the result of torch.save and torch.load with weights_only."""
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def train_torch(model, optimizer, first, last):
    for step in range(first, last):
        fill_gradients(model, step)
        optimizer.step()


def distance(model, other):
    return max(
        (a - b).abs().max().item()
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


def described(state_dict):
    """Return keys, types, dtypes and shapes of the state, in order."""
    return {
        parameter: {
            key: (type(value), getattr(value, "dtype", None), getattr(value, "shape", None))
            for key, value in slots.items()
        }
        for parameter, slots in state_dict["state"].items()
    }


@by_class
def test_torch_continues_a_run_of_jax(optimizer, options):
    reference = make_model()
    reference_optimizer = optimizer(reference.parameters(), **options)
    train_torch(reference, reference_optimizer, 0, 5)

    pair = Pair(lambda model: optimizer(model.parameters(), **options))
    twin = make_model()
    twin_optimizer = optimizer(twin.parameters(), **options)
    for step in range(5):
        fill_gradients(pair.model, step)
        pair.step_jax(to_arrays({name: p.grad for name, p in pair.model.named_parameters()}))
        with torch.no_grad():
            for name, parameter in pair.model.named_parameters():
                parameter.copy_(torch.from_numpy(np.array(pair.params[name])))
    write_moments(pair.optimizer, pair.plan, pair.opt_state)
    written = through_a_file(pair.optimizer.state_dict())
    assert described(written) == described(reference_optimizer.state_dict())

    twin.load_state_dict(pair.model.state_dict())
    twin_optimizer.load_state_dict(written)
    train_torch(twin, twin_optimizer, 5, 10)
    train_torch(reference, reference_optimizer, 5, 10)
    # Each side computes its own gradients, so a difference in the last bit grows a little.
    assert distance(twin, reference) < 5e-6


@by_class
def test_jax_continues_a_run_of_torch(optimizer, options):
    trained = make_model()
    trained_optimizer = optimizer(trained.parameters(), **options)
    train_torch(trained, trained_optimizer, 0, 5)
    saved = through_a_file(trained_optimizer.state_dict())

    pair = Pair(lambda model: optimizer(model.parameters(), **options), trained)
    pair.nb_steps = 5
    pair.optimizer.load_state_dict(saved)
    pair.opt_state = read_moments(pair.optimizer, pair.plan, pair.opt_state)
    pair.run(5)
    assert pair.difference() < 5e-7


def test_a_round_trip_changes_no_bit_and_shares_no_memory():
    pair = Pair(lambda model: NAdam(model.parameters(), lr=0.01))
    pair.run(3)
    write_moments(pair.optimizer, pair.plan, pair.opt_state)
    read = read_moments(pair.optimizer, pair.plan, pair.opt_state)
    for parameter in pair.optimizer.state.values():
        for value in parameter.values():
            value.zero_()
    for name, slots in pair.opt_state.moments.items():
        for slot, value in slots.items():
            assert read.moments[name][slot].dtype == value.dtype
            np.testing.assert_array_equal(read.moments[name][slot], value)


def test_sparse_adam_keeps_its_count_as_a_python_integer():
    table = torch.nn.Embedding(4, 2, sparse=True)
    optimizer = SparseAdam(table.parameters())
    plan = plan_groups(optimizer, parameter_names(table))
    table(torch.tensor([1])).sum().backward()
    optimizer.step()
    pair = Pair(lambda model: SparseAdam(model.parameters()), table)
    state = read_moments(optimizer, plan, pair.opt_state)
    assert state.moments["weight"]["step"] == 1
    write_moments(optimizer, plan, state)
    assert optimizer.state[table.weight]["step"] == 1
    assert type(optimizer.state[table.weight]["step"]) is int


def test_bfloat16_moments_are_converted_both_ways():
    model = make_model().to(torch.bfloat16)
    pair = Pair(lambda model: AdamW(model.parameters(), lr=0.01), model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    pair.optimizer.step()
    state = read_moments(pair.optimizer, pair.plan, pair.opt_state)
    before = {p: dict(slots) for p, slots in pair.optimizer.state.items()}
    write_moments(pair.optimizer, pair.plan, state)
    for parameter, slots in pair.optimizer.state.items():
        assert slots["exp_avg"].dtype == torch.bfloat16
        assert torch.equal(slots["exp_avg"], before[parameter]["exp_avg"])


def test_state_saved_with_other_options_is_refused():
    model = make_model()
    plain = AdamW(model.parameters())
    train_torch(model, plain, 0, 1)
    pair = Pair(lambda model: AdamW(model.parameters(), amsgrad=True), model)
    pair.optimizer.state.update(plain.state)
    message = r"'max_exp_avg_sq' of parameter 0\.weight .* is missing; expected shape \(4, 4\)"
    with pytest.raises(ValueError, match=message):
        read_moments(pair.optimizer, pair.plan, pair.opt_state)
    pair.optimizer.state[model[0].weight]["exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"'exp_avg' .* has shape \(3,\)"):
        read_moments(pair.optimizer, pair.plan, pair.opt_state)


def test_parameters_never_updated_have_no_entry_in_torch():
    pair = Pair(lambda model: AdamW(model.parameters()))
    pair.run(1)
    pair.optimizer.state[pair.model.spare.weight]["step"] = torch.tensor(3.0)
    write_moments(pair.optimizer, pair.plan, pair.opt_state)
    assert len(pair.optimizer.state_dict()["state"]) == 3
