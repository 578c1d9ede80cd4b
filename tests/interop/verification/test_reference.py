"""torch with fixed draws, and the same draws in JAX."""

import numpy as np
import pytest
import torch
from graph_cases import Component, close, eager
from random_draws import DRAWS
from table_calls import Call, graph_of
from torch import nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch_graphs import to_jax

from medjax_torch.component_state import find
from medjax_torch.lowerings.fixed_draws import FIXED_DRAWS, steps
from medjax_torch.lowerings.interpreter import run
from medjax_torch.lowerings.table import TABLE, Kind
from medjax_torch.verification import reference as module
from medjax_torch.verification.reference import FixedDraws, Spread, reference

aten = torch.ops.aten
WEIGHTS = torch.tensor([[1.0, 4.0, 0.0, 5.0], [1.0, 1.0, 2.0, 0.5]])
MORE = {
    aten.multinomial.default: [(WEIGHTS, 3), (WEIGHTS, 7, True), (WEIGHTS[0], 2)],
    aten.native_dropout.default: [
        (torch.randn(3, 4), 0.5, False),
        (torch.randn(3, 4), 1.0, True),
        (torch.randn(3, 4), 0.0, None),
    ],
    aten.rrelu_with_noise_functional.default: [
        (torch.randn(3, 4), torch.zeros(3, 4), 0.1, 0.3, False),
    ],
    aten.randint.low: [(2**30, 2**31 - 1, [3, 2]), (-(2**31), 2**31 - 1, [4])],
    aten.rand.default: [([],), ([2, 0],), ([2, 3], {"dtype": torch.bfloat16})],
    aten.randperm.default: [(0,), (7,)],
}


def listing(target):
    args, kwargs, *_ = DRAWS[target]
    calls = [(args, kwargs)]
    for more in MORE.get(target, []):
        has_options = isinstance(more[-1], dict)
        calls.append((more[:-1], more[-1]) if has_options else (more, {}))
    return [Call(target, args, kwargs, None, 0) for args, kwargs in calls]


def test_every_random_operator_has_a_fixed_draw():
    assert set(FIXED_DRAWS) == {target for target, row in TABLE.items() if row.kind is Kind.RANDOM}


@pytest.mark.parametrize("target", DRAWS, ids=str)
def test_torch_and_jax_draw_the_same(target):
    calls = listing(target)
    with FixedDraws():
        expected = [call.target(*call.args, **call.kwargs) for call in calls]
    graph, inputs = graph_of(calls, expected)
    actual = run(graph, list(map(to_jax, inputs)), None, {})
    pairs = zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True)
    for actual, wanted in pairs:
        wanted = (wanted.float() if wanted.dtype == torch.bfloat16 else wanted).numpy()
        np.testing.assert_allclose(np.asarray(actual, wanted.dtype), wanted, rtol=3e-7)


IN_PLACE = {
    "bernoulli_": lambda x: (x.bernoulli_(0.3), torch.bernoulli(torch.zeros_like(x), 0.3)),
    "exponential_": lambda x: (x.exponential_(2.0), aten.exponential(x, 2.0)),
    "normal_": lambda x: (x.normal_(1.0, 2.0), torch.normal(1.0, 2.0, x.shape)),
    "uniform_": lambda x: (x.uniform_(-1, 3), torch.rand(x.shape) * 4 - 1),
    "generator": lambda x: (
        torch.rand(x.shape, generator=torch.Generator()),
        torch.rand(x.shape),
    ),
    "low_generator": lambda x: (
        torch.randint(3, 9, x.shape, generator=torch.Generator()),
        torch.randint(3, 9, x.shape),
    ),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_variants_of_an_operator_draw_the_same(name):
    with FixedDraws():
        one, other = IN_PLACE[name](torch.zeros(5, 6))
    torch.testing.assert_close(one, other)
    assert one.unique().numel() > 1


@pytest.mark.parametrize("inplace", [False, True])
def test_rrelu_and_its_derivative_share_the_slopes(inplace):
    x = (-torch.arange(1.0, 7)).requires_grad_()
    with FixedDraws():
        y = F.rrelu(x * 1, training=True, inplace=inplace)
        y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)
    assert x.grad.unique().numel() == 6


def test_dropout_keeps_the_expected_share():
    with FixedDraws():
        kept = F.dropout(torch.ones(64, 96), 0.3)
        feature = F.dropout1d(torch.ones(64, 96, 2), 0.3)
    assert kept.count_nonzero().item() / kept.numel() == pytest.approx(0.7, abs=0.01)
    torch.testing.assert_close(kept[kept > 0], torch.full_like(kept[kept > 0], 1 / 0.7))
    torch.testing.assert_close(feature[..., 0], feature[..., 1])


@pytest.mark.parametrize("spread", [Spread.RISING, Spread.FALLING])
def test_draws_in_longer_results_are_the_same_and_the_extreme_is_at_the_end(spread):
    with FixedDraws(spread=spread):
        torch.testing.assert_close(F.dropout(torch.ones(3, 5), 0.9), torch.full((3, 5), 10.0))
        short, long, huge = torch.rand(4, 7, 2), torch.rand(4, 9, 2), torch.rand(3, 20_000)
        classes = [torch.multinomial(torch.ones(2, size), 1).tolist() for size in (7, 9)]
        likely = torch.multinomial(torch.tensor([0.1, 0.5, 0.4]), 2).tolist()
        noise = F.gumbel_softmax(torch.zeros(4, 9), hard=True).argmax(1)
    assert torch.equal(short, long[:, :7])
    rising = spread is Spread.RISING
    extreme = long.argmax(1) if rising else long.argmin(1)
    assert (extreme == 8).all()
    assert huge.min() > 0.99
    assert classes == [[[size - 1 if rising else 0]] * 2 for size in (7, 9)]
    assert likely == [1, 2]
    assert (noise == (0 if rising else 8)).all()
    with FixedDraws(spread=spread, shorter=[(4, 7), (3,), (4, 9)]):
        beyond, other, same = torch.rand(4, 9), torch.rand(2), torch.rand(4, 9)
    assert torch.equal(beyond[:, :7], long[:, :7, 0])
    assert (beyond[:, 7:] > 0.99).all() if rising else (beyond[:, 7:] < 1e-6).all()
    assert min(other.min(), same.min()) > 0.99


def test_the_steps_of_a_long_row_all_differ():
    values = steps(torch.arange(2**20))
    assert values.unique().numel() == 2**20
    assert (values.min(), values.max()) == (0, 2**20 - 1)


def test_composite_operations_of_inference_mode():
    with torch.inference_mode(), FixedDraws():
        first = F.dropout(torch.ones(4, 5), 0.5)
    with torch.no_grad(), FixedDraws():
        second = F.dropout(torch.ones(4, 5), 0.5)
    torch.testing.assert_close(first, second)


def test_a_draw_without_convention_is_refused(monkeypatch):
    monkeypatch.delitem(FIXED_DRAWS, torch.ops.aten.geometric.default)
    with FixedDraws(), pytest.raises(ValueError, match=r"geometric_.*Use another"):
        torch.ones(3).geometric_(0.5)


def forward_of(component, train=True):
    return lambda batch: component.forward(batch, return_loss=True, eval_mode=not train)


def fit(component, batch):
    hidden = component.model(batch["x"])
    return {"hidden": hidden, "least": hidden.min().item(), "name": "x"}, hidden.square().mean()


def component_of(*layers):
    torch.manual_seed(0)
    return Component(fit, model=nn.Sequential(*layers), spare=nn.Linear(2, 2))


@pytest.mark.parametrize("train", [True, False])
def test_the_reference_equals_torch(train):
    component = component_of(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    batch = {"x": torch.randn(5, 4)}
    loss, gradients, outputs, state = eager(component, batch, train)
    inventory = find(component)
    outcome = reference(forward_of(component, train), inventory, batch, train=train)
    close(torch.tensor(outcome.loss), loss)
    close(torch.tensor(outcome.outputs["hidden"]), outputs["hidden"])
    assert outcome.outputs["least"] == pytest.approx(outputs["least"])
    assert outcome.outputs.keys() == {"hidden", "least"}
    assert outcome.gradients.keys() == gradients.keys()
    assert "spare.weight" not in outcome.gradients
    assert outcome.state.keys() == state.keys()
    for name, gradient in gradients.items():
        close(torch.tensor(outcome.gradients[name]), gradient)
    for name, value in state.items():
        close(torch.tensor(outcome.state[name]), value)


def test_the_reference_changes_nothing():
    component = component_of(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5))
    inventory, batch = find(component), {"x": torch.randn(5, 4)}
    before = {name: tensor.clone() for name, tensor in inventory.tensors.items()}
    state = torch.get_rng_state()
    first, second = (
        reference(forward_of(component), inventory, batch, train=True).loss for _ in range(2)
    )
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in find(component).tensors.items():
        assert tensor is inventory.tensors[name]
        assert torch.equal(tensor, before[name])
        assert tensor.grad is None


def test_an_outcome_does_not_change_with_what_forward_keeps():
    kept = np.zeros(3)

    def forward(component, batch):
        kept[:] += 1
        component.model.count = torch.from_numpy(kept)
        return {"count": component.model.count}, component.model.weight.sum()

    component = Component(forward, model=nn.Linear(2, 2))
    component.model.register_buffer("count", torch.zeros(3).double())
    inventory = find(component)
    first, _ = (reference(forward_of(component), inventory, {}, train=True) for _ in range(2))
    np.testing.assert_array_equal(first.state["model.count"], np.ones(3))
    np.testing.assert_array_equal(first.outputs["count"], np.ones(3))


def test_gradients_of_sparse_embeddings_are_dense():
    def forward(component, batch):
        return {}, component.model(batch["ids"]).square().sum()

    component = Component(forward, model=nn.Embedding(5, 2, sparse=True))
    batch = {"ids": torch.tensor([1, 1, 4])}
    outcome = reference(forward_of(component), find(component), batch, train=True)
    expected = 2 * component.model.weight.detach() * torch.tensor([[0.0], [2], [0], [0], [1]])
    np.testing.assert_allclose(outcome.gradients["model.weight"], expected, rtol=1e-6)


def test_half_of_the_threads_are_left_to_xla_while_it_compiles(monkeypatch):
    seen = []

    def threads(call):
        seen.append(torch.get_num_threads())
        return {}, torch.ones(())

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for is_compiling in (False, True):
            monkeypatch.setattr(module, "is_compiling_aside", lambda answer=is_compiling: answer)
            reference(threads, find(Component(None)), {}, train=False)
        assert seen == [4, 2]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
