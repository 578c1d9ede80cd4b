"""The size of a difference between two results."""

import numpy as np
import pytest

from medjax_torch.verification.comparison import apart, differences
from medjax_torch.verification.reference import Outcome


def test_what_is_zero_on_both_sides_counts_in_the_size_only():
    actual, expected = np.float32([1.001, 0, 0, 0]), np.float32([1, 0, 0, 0])
    # The average difference over the norm and the floor of 1e-3 for each of four elements.
    assert apart(actual, expected) == pytest.approx(1e-3 / (1 + 2e-3), rel=1e-3)
    assert apart(actual, expected, norm=2.0) == pytest.approx(1e-3 / (1 + 0.06), rel=1e-3)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_number_where_the_other_side_is_zero_is_seen(broken):
    zeros = np.zeros(100_000, np.float32)
    wrong = zeros.copy()
    wrong[70_000] = broken
    assert apart(wrong, zeros) == apart(zeros, wrong) == np.inf
    assert apart(wrong, wrong.copy(), norm=1.0) == 0


def test_one_wrong_row_of_a_large_gradient_is_seen():
    expected = np.zeros((1000, 300), np.float32)
    expected[7] = 1
    actual = expected.copy()
    actual[900] = 0.5
    assert apart(actual, expected, norm=float(np.linalg.norm(expected))) > 0.04


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_broken_gradient_hides_no_other(broken):
    def outcome(gradient):
        gradients = {"a": np.float32([broken]), "b": np.float32([gradient])}
        return Outcome(loss=np.float32(1), gradients=gradients, outputs={}, state={})

    first, *others = differences(outcome(2), outcome(1), ("JAX", "torch"))
    assert first.name == "the gradient of b"
    assert first.relative > 0.05
    assert all(each.relative == 0 for each in others)
