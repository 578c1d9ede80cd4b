"""Where torch raises an error about values, the results of JAX are spoiled."""

import numpy as np
import pytest
import torch
from torch_cases import f
from torch_graphs import functional_graph, on_jax

from medjax_torch.lowerings.custom_ops import ctc_loss

LEAST = np.iinfo(np.int32).min
DIVISIONS = {
    "floor": lambda x, y: x // y,
    "trunc": lambda x, y: torch.div(x, y, rounding_mode="trunc"),
    "remainder": lambda x, y: x % y,
    "fmod": torch.fmod,
}


def results(function, traced, *others):
    """Return what a function gives in JAX for arguments, and for others of the same shapes."""
    graph = functional_graph(lambda *arguments: [function(*arguments)], list(traced))
    return [on_jax(graph, list(arguments))[0] for arguments in (traced, *others)]


@pytest.mark.parametrize("name", DIVISIONS)
def test_an_integer_divided_by_zero(name):
    x = torch.tensor([7, -7, 5])
    divisors = torch.tensor([2, 2, -3]), torch.tensor([2, 0, -3])
    with pytest.raises(RuntimeError, match="ZeroDivision"):
        DIVISIONS[name](x, divisors[1])
    fine, broken = results(DIVISIONS[name], *((x, y) for y in divisors))
    np.testing.assert_array_equal(fine, DIVISIONS[name](x, divisors[0]))
    assert broken.tolist() == [fine[0], LEAST, fine[2]]
    (unsigned,) = results(DIVISIONS[name], (x.abs().byte(), divisors[1].abs().byte()))
    assert unsigned[1] == 255


def test_a_float_divided_by_zero_is_no_error():
    x = torch.tensor([1.0, -1.0, 0.0, float("inf"), float("nan"), 7.5, -7.5])
    (result,) = results(lambda x, y: x // y, (x, torch.zeros(7)))
    np.testing.assert_array_equal(result, x // torch.zeros(7))


@pytest.mark.parametrize("number", [0, 2])
def test_a_mask_that_selects_more_than_is_written(number):
    def write(x, mask, source):
        return x.masked_scatter(mask, source)

    x, source = f(2, 3), f(number)
    fits = torch.tensor([[True, False, False], [number > 1, False, False]]) & bool(number)
    more = torch.tensor([[False, True, True], [True, False, False]])
    fine, broken = results(write, (x, fits, source), (x, more, source))
    np.testing.assert_array_equal(fine, write(x, fits, source))
    assert np.isnan(broken).any()


def test_a_mask_larger_than_what_it_is_written_to():
    x, source = f(3), f(5)
    mask = torch.tensor([[True, False, True], [True, True, False]])
    (result,) = results(torch.masked_scatter, (x, mask, source))
    np.testing.assert_array_equal(result, x.masked_scatter(mask, source))


@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize(
    ("input_lengths", "target_lengths"),
    [([7, 6], [2, 2]), ([-1, 6], [2, 2]), ([6, 6], [4, 2]), ([6, 6], [-1, 2])],
)
def test_ctc_lengths_out_of_range(zero_infinity, input_lengths, target_lengths):
    scores, targets = f(6, 2, 4).log_softmax(-1), torch.tensor([[1, 2, 2], [3, 1, 0]])

    def loss(*lengths):
        return ctc_loss(scores, targets, *lengths, 0, "none", zero_infinity)

    broken = torch.tensor(input_lengths), torch.tensor(target_lengths)
    with pytest.raises(RuntimeError, match="Expected"):
        loss(*broken)
    fine, spoiled = results(loss, (torch.tensor([6, 6]), torch.tensor([2, 2])), broken)
    assert np.isfinite(fine).all()
    assert np.isnan(spoiled).tolist() == [True, False]


def test_ctc_lengths_of_more_labels_than_there_are():
    scores, targets = f(6, 2, 4).log_softmax(-1), torch.tensor([1, 2, 3])

    def loss(lengths):
        return ctc_loss(scores, targets, torch.tensor([6, 6]), lengths, 0, "none")

    fine, spoiled = results(loss, (torch.tensor([2, 1]),), (torch.tensor([2, 2]),))
    assert np.isfinite(fine).all()
    assert np.isnan(spoiled).all()


@pytest.mark.parametrize("offsets", [[1, 2], [0, 6], [3, 2]])
def test_offsets_that_do_not_rise_from_zero(offsets):
    ids = torch.tensor([0, 1, 2, 3, 4])

    def bags(weight, offsets):
        return torch.nn.functional.embedding_bag(ids, weight, offsets, mode="sum")

    weight = f(5, 2)
    fine, broken = results(bags, (weight, torch.tensor([0, 2])), (weight, torch.tensor(offsets)))
    assert np.isfinite(fine).all()
    assert np.isnan(broken).any()
