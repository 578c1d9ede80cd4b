"""Random operators draw from the right distribution, by key and position in the graph."""

import jax
import numpy as np
import pytest
import torch
from random_draws import DRAWS, SIZE
from table_calls import Call, lowered
from torch_cases import f
from torch_graphs import functional_graph, on_jax

aten = torch.ops.aten


def draw(target, key=None, count=1):
    args, kwargs, _, _ = DRAWS[target]
    listing = [Call(target, args, kwargs, None, 0)] * count
    results = [target(*args, **kwargs) for _ in listing]
    drawn = lowered(listing, results, key)
    return [value[0] if isinstance(value, list) else value for value in drawn]


@pytest.mark.parametrize("target", DRAWS, ids=str)
def test_distribution(target):
    values = draw(target)[0].astype(float)
    _, _, mean, deviation = DRAWS[target]
    assert abs(values.mean() - mean) < 5 * deviation * SIZE**-0.5
    assert values.std() == pytest.approx(deviation, rel=0.1)


def test_draws_differ_by_key_and_by_operator():
    first, second = draw(aten.randn.default, jax.random.key(0), count=2)
    assert not np.any(first == second)
    again = draw(aten.randn.default, jax.random.key(0), count=2)
    np.testing.assert_array_equal(again, [first, second])
    other = draw(aten.randn.default, jax.random.key(1), count=2)
    assert not np.any(np.equal(other, [first, second]))


def test_only_random_operators_count_for_the_key():
    def function(x):
        return [torch.rand_like(x).exp() * 2, torch.rand_like(x)]

    graph = functional_graph(function, [f(3)])
    key = jax.random.key(7)
    first, second = on_jax(graph, [f(3)], key)
    keys = [jax.random.fold_in(key, i) for i in range(2)]
    uniform = [np.asarray(jax.random.uniform(k, (3,))) for k in keys]
    np.testing.assert_allclose(first, 2 * np.exp(uniform[0]), rtol=1e-6)
    np.testing.assert_array_equal(second, uniform[1])


def test_dropout_and_its_derivative_share_a_mask():
    def function(x):
        x = x.detach().requires_grad_(True)
        dropped = torch.nn.functional.dropout(x, 0.4)
        return [dropped.detach(), *torch.autograd.grad(dropped.sum(), [x])]

    x = torch.ones(1000)
    dropped, gradient = on_jax(functional_graph(function, [x]), [x])
    np.testing.assert_array_equal(dropped, gradient)
    assert set(np.unique(dropped)) == {np.float32(0), np.float32(1 / 0.6)}


@pytest.mark.parametrize("target", [aten.multinomial.default, aten.randperm.default], ids=str)
def test_without_replacement_each_class_is_drawn_once(target):
    args = (torch.tensor([1.0, 2, 3, 4]), 4, False) if target is aten.multinomial.default else (4,)
    values = lowered([Call(target, args, {}, None, 0)], [target(*args)])[0]
    assert sorted(values) == [0, 1, 2, 3]


@pytest.mark.parametrize(("p", "train"), [(0.5, False), (1.0, True), (0.0, True)])
def test_dropout_with_probability_0_and_1(p, train):
    x = f(5)
    expected = aten.native_dropout(x, p, train)
    call = Call(aten.native_dropout.default, (x, p, train), {}, None, 0)
    kept, mask = lowered([call], [expected])[0]
    np.testing.assert_allclose(kept, expected[0], rtol=1e-6)
    np.testing.assert_array_equal(mask, expected[1])


def test_rrelu_in_evaluation():
    args = (f(5), torch.zeros(5), 0.1, 0.3, False)
    expected = aten.rrelu_with_noise_functional(*args)
    call = Call(aten.rrelu_with_noise_functional.default, args, {}, None, 0)
    np.testing.assert_allclose(lowered([call], [expected])[0][0], expected[0], rtol=1e-6)
