"""Every lowering in the table equals torch's operator."""

import operator

import attention_calls  # noqa: F401
import dense_calls  # noqa: F401
import index_calls  # noqa: F401
import jax.numpy as jnp
import loss_calls  # noqa: F401
import order_calls  # noqa: F401
import pointwise_calls  # noqa: F401
import pytest
import recurrence_calls  # noqa: F401
import torch
import view_calls  # noqa: F401
from random_draws import CAUCHY, DRAWS
from table_calls import FAMILIES, compared, listed, lowered, torch_result

from medjax_torch.graph.recompute import barrier
from medjax_torch.lowerings.table import TABLE, Kind, lowers

aten = torch.ops.aten

NUMBERS = {
    operator.abs: (-5,),
    operator.add: (5, 2),
    operator.floordiv: (5, 2),
    operator.getitem: ([5, 2], 1),
    operator.mod: (5, 2),
    operator.mul: (5, 2),
    operator.neg: (5,),
    operator.pow: (5, 2),
    operator.sub: (5, 2),
    operator.truediv: (5, 2),
    torch.sym_float: (5,),
    torch.sym_int: (2.5,),
    torch.sym_max: (5, 2),
    torch.sym_min: (5, 2),
    torch.sym_sqrt: (4.0,),
}
CHECKS = {
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten._linalg_check_errors.default,
    aten.sym_constrain_range.default,
    aten.sym_constrain_range_for_size.default,
    torch.ops.profiler._record_function_enter_new.default,
    torch.ops.profiler._record_function_exit._RecordFunction,
}
SIZES = {aten.sym_size.int: ((2, 3), 1), aten.sym_numel.default: ((2, 3),)}
READ = {aten._local_scalar_dense.default, *SIZES}
ORDER = {barrier}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings(
    "ignore:.*upper. is deprecated:UserWarning",
    "ignore:indexing with dtype torch.uint8 is now deprecated:UserWarning",
)
def test_rows_equal_torch(family):
    listing = FAMILIES[family]
    expected = [torch_result(call) for call in listing]
    actual = lowered(listing, expected)
    differences = [compared(*row) for row in zip(listing, actual, expected, strict=True)]
    assert not any(differences), "\n\n".join(filter(None, differences))


def test_every_row_is_tested():
    tested = listed() | set(NUMBERS) | CHECKS | READ | ORDER | set(DRAWS) | {CAUCHY}
    assert set(TABLE) - tested == set()
    assert tested - set(TABLE) == set()
    assert {target for target, row in TABLE.items() if row.kind is Kind.RANDOM} == {*DRAWS, CAUCHY}


@pytest.mark.parametrize("function", NUMBERS, ids=lambda function: function.__name__)
def test_arithmetic_on_numbers(function):
    numbers = NUMBERS[function]
    assert float(TABLE[function].function(*numbers)) == float(function(*numbers))


def test_checks_do_nothing():
    assert all(TABLE[target].function(1, name="x") is None for target in CHECKS)


@pytest.mark.parametrize("target", SIZES, ids=str)
def test_sizes_are_numbers(target):
    shape, *rest = SIZES[target]
    assert TABLE[target].function(jnp.ones(shape), *rest) == target(torch.ones(shape), *rest)


def test_item_stays_a_value():
    assert TABLE[aten._local_scalar_dense.default].function(jnp.ones((1, 1))).shape == ()


def test_a_barrier_returns_its_arguments():
    values = [jnp.ones(2), jnp.zeros(())]
    for value, back in zip(values, TABLE[barrier].function(values), strict=True):
        assert (value == back).all()


def test_a_target_has_one_lowering():
    with pytest.raises(ValueError, match=r"aten.add.Tensor has two lowerings"):
        lowers(aten.add.Tensor)(jnp.add)
