"""Laws of Mean: the result does not depend on how items are split into batches."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medjax import Mean

values = st.lists(st.floats(-100, 100, width=32), max_size=12)
pairs = st.lists(
    st.tuples(st.floats(-100, 100, width=32), st.integers(0, 5).map(float)), max_size=12
)
laws = settings(max_examples=40, deadline=None)


def mean_of(items):
    data = np.array(items, np.float32).reshape(-1, 2)
    return Mean.of(jnp.asarray(data[:, 0]), jnp.asarray(data[:, 1]))


def assert_close(a, b):
    assert float(a.total) == pytest.approx(float(b.total), rel=1e-5, abs=1e-2)
    assert float(a.weight) == float(b.weight)


@laws
@given(pairs, pairs, pairs)
def test_merging_is_associative_and_commutative(a, b, c):
    a, b, c = mean_of(a), mean_of(b), mean_of(c)
    assert_close(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_close(a.merge(b), b.merge(a))


@laws
@given(pairs)
def test_the_mean_of_nothing_is_the_identity(items):
    mean = mean_of(items)
    for merged in (mean.merge(Mean.empty()), Mean.empty().merge(mean)):
        assert (float(merged.total), float(merged.weight)) == (
            float(mean.total),
            float(mean.weight),
        )


@laws
@given(pairs, st.integers(0, 12))
def test_splitting_the_items_changes_nothing(items, at):
    assert_close(mean_of(items[:at]).merge(mean_of(items[at:])), mean_of(items))


@laws
@given(pairs, st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 12))
def test_a_value_of_weight_zero_does_not_count(items, value, at):
    padded = [*items[:at], (value, 0.0), *items[at:]]
    assert_close(mean_of(padded), mean_of(items))


@laws
@given(values.filter(bool))
def test_without_weights_it_is_the_arithmetic_mean(items):
    mean = Mean.of(jnp.asarray(items, jnp.float32))
    assert float(mean.compute()) == pytest.approx(np.mean(items), rel=1e-4, abs=1e-3)
    assert float(mean.weight) == len(items)


def test_it_computes_the_weighted_mean_and_nan_if_empty():
    mean = mean_of([(1.0, 1.0), (4.0, 3.0)])
    assert float(mean.compute()) == 3.25
    assert math.isnan(float(Mean.empty().compute()))


def test_weights_broadcast_and_the_sums_are_float32():
    mean = Mean.of(jnp.array([[1, 2], [3, 4]]), jnp.array([[True], [False]]))
    assert (float(mean.total), float(mean.weight)) == (3.0, 2.0)
    assert mean.total.dtype == mean.weight.dtype == jnp.float32
    assert mean.total.shape == mean.weight.shape == ()


def test_weights_are_those_of_the_first_axes():
    values = jnp.arange(4.0).reshape(2, 2)
    by_row = Mean.of(values, jnp.array([1.0, 0.0]))
    assert (float(by_row.total), float(by_row.weight)) == (1.0, 2.0)
    by_column = Mean.of(values, jnp.array([[1.0, 0.0]]))
    assert (float(by_column.total), float(by_column.weight)) == (2.0, 2.0)
    assert float(Mean.of(values, jnp.array(2.0)).weight) == 8.0


@pytest.mark.parametrize("shape", [(3,), (2, 2), (1,), (2, 3, 1), (1, 2)])
def test_weights_of_other_axes_are_refused(shape):
    with pytest.raises(ValueError, match=r"shape of the first axes, such as \(2,\)"):
        Mean.of(jnp.ones((2, 3)), jnp.ones(shape))
