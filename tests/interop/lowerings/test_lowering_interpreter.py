"""Edge cases of the interpreter: missing operators, dtypes, wrong graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch_cases import Apply, f, ids
from torch_graphs import eager, functional_graph, on_jax, to_jax, trace

from medjax_torch.lowerings import LoweringError, MissingOperatorWarning, missing_operators, run
from medjax_torch.lowerings.custom_ops import ctc_loss
from medjax_torch.lowerings.table import TABLE

KEY = jax.random.key(0)


def sampled(x, grid):
    return F.grid_sample(x, grid.tanh(), align_corners=False)


@pytest.fixture(scope="module")
def missing():
    """A traced module whose backward pass has an operator without a lowering."""
    module, inputs = Apply(sampled), (f(1, 2, 3, 4), f(1, 2, 2, 2))
    return *trace(module, inputs), eager(module, inputs)


def test_missing_operators_are_named(missing):
    (operator,) = missing_operators(missing[0])
    assert operator.name == "aten.grid_sampler_2d_backward.default"
    assert "backward pass" in operator.where


def test_missing_operators_are_named_with_the_line_of_the_module():
    graph, _ = trace(Apply(lambda x: torch.mode(x, 0).values.detach() * x), [f(3)])
    (operator,) = missing_operators(graph)
    assert str(operator).startswith("aten.mode.default (called at File")
    assert 'torch_cases.py", line' in operator.where


def test_a_missing_operator_runs_on_the_host(missing):
    graph, flat, expected = missing
    with pytest.warns(MissingOperatorWarning, match="grid_sampler_2d_backward") as warned:
        actual = on_jax(graph, flat)
    assert len(warned) == 1
    leaves = [expected.loss, *expected.outputs, *expected.gradients]
    for value, wanted in zip(actual, leaves, strict=True):
        np.testing.assert_allclose(value, wanted, rtol=2e-6, atol=2e-6)


def test_the_host_computes_in_torchs_dtypes():
    def function(x, i):
        return [torch.mode(i, 0).values, torch.mode(x.bfloat16(), 0).values, *torch.mode(i[:, 0])]

    flat = [f(3, 2), ids(2, 3, 2)]
    graph = functional_graph(function, flat)
    with pytest.warns(MissingOperatorWarning, match="aten.mode.default"):
        actual = on_jax(graph, flat)
    for value, wanted in zip(actual, function(*flat), strict=True):
        np.testing.assert_array_equal(value.astype(np.float32), wanted.float())


def test_host_operators_are_refused_on_tpu(missing):
    graph, flat, _ = missing
    with pytest.raises(
        LoweringError, match=r"grid_sampler_2d_backward.*on TPU this is not possible"
    ):
        run(graph, list(map(to_jax, flat)), KEY, {}, platform="tpu")


def test_missing_random_operators_are_refused(monkeypatch):
    monkeypatch.delitem(TABLE, torch.ops.aten.geometric.default)
    graph = functional_graph(lambda x: [x.clone().geometric_(0.5)], [f(3)])
    with pytest.raises(LoweringError, match=r"geometric.*draws random numbers"):
        on_jax(graph, [f(3)])


def test_graphs_that_write_to_tensors_are_refused():
    graph = make_fx(lambda x: x.mul_(2))(f(3))
    with pytest.raises(LoweringError, match=r"mul_.Tensor.*writes to its arguments"):
        on_jax(graph, [f(3)])


def test_graphs_of_python_functions_are_refused():
    graph = torch.fx.symbolic_trace(lambda x: torch.relu(x))
    with pytest.raises(LoweringError, match=r"calls relu .*on a number.*\.item\(\)"):
        on_jax(graph, [f(3)])


def test_the_number_of_arguments_is_checked():
    graph = functional_graph(lambda x, y: [x + y], [f(3), f(3)])
    with pytest.raises(LoweringError, match="got 1 arguments; expected 2"):
        on_jax(graph, [f(3)])


def test_a_wrong_shape_is_an_error():
    graph = functional_graph(lambda x: [x * 2], [f(3)])
    with pytest.raises(LoweringError, match=r"has shape \(4,\) in JAX and \(3,\) in torch"):
        on_jax(graph, [f(4)])


def test_errors_in_a_lowering_name_operator_and_line():
    graph = functional_graph(lambda x, y: [x @ y], [f(3, 3), f(3, 3)])
    with pytest.raises(LoweringError, match=r"calls aten.mm.default \(at .*TypeError: ") as error:
        on_jax(graph, [f(3, 3), f(2, 3)])
    assert isinstance(error.value.__cause__, TypeError)


def test_integers_beyond_32_bits_are_refused_by_line():
    none, every = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max

    def limits(i):
        return [i.masked_fill(i > 0, every), torch.where(i > 0, i, none)]

    graph = functional_graph(limits, [ids(9, 3)])
    highest, lowest = on_jax(graph, [torch.tensor([0, 1, 2])])
    assert (highest.max(), lowest.min()) == (2**31 - 1, -(2**31))
    for function in (
        lambda i: [i.masked_fill(i > 0, 2**31)],
        lambda i: [torch.full((2,), -(2**40)) + i[:1]],
        lambda i: [i * 2654435761],
    ):
        graph = functional_graph(function, [ids(9, 3)])
        with pytest.raises(LoweringError, match=r"2654435761|2147483648|1099511627776"):
            on_jax(graph, [ids(9, 3)])


def test_64_bits_become_32_and_constants_are_inputs():
    offset = torch.tensor([2**40, 1])[1:]

    def function(x, i):
        return [x.double() / 3, i + offset, i.float() * x.half()]

    flat = [f(3), ids(9, 3)]
    dtypes = [value.dtype for value in on_jax(functional_graph(function, flat), flat)]
    assert dtypes == [jnp.float32, jnp.int32, jnp.float32]


@pytest.mark.parametrize("cut", [2, -1])
def test_an_index_out_of_range_shows_as_nan(cut):
    graph = functional_graph(lambda w, i: [F.embedding(i, w)], [f(2, 3), ids(2, 2)])
    (rows,) = on_jax(graph, [f(2, 3), torch.tensor([0, cut])])
    assert np.isfinite(rows[0]).all()
    assert np.isnan(rows[1]).all()


def test_the_ctc_loss_of_one_sequence_equals_torchs():
    x, targets = f(6, 4).log_softmax(-1), torch.tensor([1, 2])
    for reduction in ("none", "mean", "sum"):
        expected = F.ctc_loss(x, targets, torch.tensor(6), torch.tensor(2), reduction=reduction)
        torch.testing.assert_close(ctc_loss(x, targets, (6,), (2,), 0, reduction), expected)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="reduction is 'median'; expected one of"):
        ctc_loss(f(6, 1, 4), ids(3, 1, 2), [6], [2], reduction="median")


def test_as_strided_beyond_a_view_is_refused():
    with pytest.raises(ValueError, match=r"Call .contiguous\(\) first"):
        functional_graph(lambda x: [x[:, ::2].as_strided((2,), (1,))], [f(3, 4)])


@pytest.mark.parametrize("offset", [0, 4])
def test_as_strided_with_an_offset_of_a_view_that_starts_later_is_refused(offset):
    # In torch the offset counts from the beginning of the memory; the graph has only the view.
    with pytest.raises(ValueError, match=r"and offset 4 cannot be traced; expected a tensor"):
        functional_graph(lambda x: [(x * 1)[1:].as_strided((2,), (1,), offset)], [f(3, 4)])
