"""Divisors, lengths, offsets and masks for which torch raises are refused before a graph runs."""

import numpy as np
import pytest
import torch
from graph_cases import Component, traced
from test_graph_on_jax import RULES, check_on_jax, on_jax
from torch import nn
from torch.nn import functional as F

from medjax_torch.component_state import find
from medjax_torch.graph import bounds, check_ranges, columns
from medjax_torch.lowerings.interpreter import run

SCORES = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))
CTC = {
    "targets": torch.tensor([[1, 2, 2], [3, 1, 0]]),
    "inputs": torch.tensor([6, 5]),
    "lengths": torch.tensor([3, 2]),
}
LABELS = {**CTC, "targets": torch.tensor([1, 2, 2, 3, 1])}
BAGS = {"ids": torch.tensor([0, 1, 2, 3, 2]), "offsets": torch.tensor([0, 2, 5])}
NUMBERS = {"a": torch.tensor([7, -5]), "n": torch.tensor([2, -2])}
MASK = {"mask": torch.tensor([True, False, False])}


def ctc(weight, batch):
    scores = (SCORES * weight[0, 0]).log_softmax(-1)
    return F.ctc_loss(scores, batch["targets"], batch["inputs"], batch["lengths"])


def bagged(mode, *, end):
    def bags(weight, batch):
        return F.embedding_bag(
            batch["ids"], weight, batch["offsets"], mode=mode, include_last_offset=end
        )

    return bags


DIVISIONS = {
    "floor": lambda w, b: w[b["a"] // b["n"]],
    "floor of a number": lambda w, b: w * (7 // b["n"])[0],
    "trunc": lambda w, b: w * torch.div(b["a"], b["n"], rounding_mode="trunc")[0],
    "remainder": lambda w, b: w * (b["a"] % b["n"])[1],
    "fmod": lambda w, b: w * b["a"].fmod(b["n"])[0],
}
REFUSED = {
    **{name: (each, NUMBERS, {"n": [1, 0]}, "") for name, each in DIVISIONS.items()},
    "sum": (
        lambda w, b: w * (b["a"] // b["n"].sum())[0],
        {**NUMBERS, "n": torch.tensor([2, 1])},
        {"n": [1, -1]},
        "The divisor computed from 'n' is 0; expected a number other than 0",
    ),
    "difference": (
        lambda w, b: w * (b["a"] // (b["n"] - b["a"]))[0],
        NUMBERS,
        {"n": [7, 1]},
        "The divisor computed from 'a' and 'n' is 0; expected a number other than 0 for aten.div",
    ),
    "masked_scatter": (
        lambda w, b: w.masked_scatter(b["mask"], w.flatten()[:4]),
        MASK,
        {"mask": [True, False, True]},
        "The number of elements selected by the mask computed from 'mask' is 2; expected 0 to 1 ",
    ),
    "frames": (ctc, CTC, {"inputs": [6, 7]}, r"'inputs' holds 7 at \[1\]; expected 0 to 6 for "),
    "no frames": (ctc, CTC, {"inputs": [-1, 6]}, r"'inputs' holds -1 at \[0\]; expected 0 to 6"),
    "labels": (ctc, CTC, {"lengths": [4, 1]}, r"'lengths' holds 4 at \[0\]; expected 0 to 3 for"),
    "all labels": (
        ctc,
        LABELS,
        {"lengths": [3, 1]},
        "The sum of the lengths computed from 'lengths' is 4; expected 5 for medjax.ctc_nll",
    ),
    "first offset": (
        bagged("sum", end=False),
        BAGS,
        {"offsets": [1, 2, 5]},
        "The first offset computed from 'offsets' is 1; expected 0 for aten._embedding_bag",
    ),
    "last offset": (bagged("sum", end=True), BAGS, {"offsets": [0, 2, 6]}, "is 6; expected 0 to 5"),
    "end": (bagged("mean", end=True), BAGS, {"offsets": [0, 2, 4]}, "last offset .* 4; expected 5"),
    "falling": (bagged("max", end=False), BAGS, {"offsets": [0, 3, 2]}, "-1; expected 0 or more"),
}
UNREFUSED_BY_TORCH = {"end", "falling"}
"""torch computes something else for them, or reads memory that was never written."""

FINE = {
    **{name: (each, NUMBERS, {"n": [-3, 4]}) for name, each in DIVISIONS.items()},
    "guarded": (
        lambda w, b: w * (b["a"] // torch.where(b["n"] != 0, b["n"], 1)).sum(),
        NUMBERS,
        {"n": [0, 3]},
    ),
    "floats": (lambda w, b: w * (b["a"] / b["n"]).clamp(max=9).sum(), NUMBERS, {"n": [0, 3]}),
    "masked_scatter": (REFUSED["masked_scatter"][0], MASK, {"mask": [False, False, True]}),
    "frames": (ctc, CTC, {"inputs": [6, 4]}),
    "labels": (ctc, LABELS, {"lengths": [2, 3]}),
    "offsets": (bagged("max", end=False), BAGS, {"offsets": [0, 0, 5]}),
    "mean": (bagged("mean", end=True), BAGS, {"offsets": [0, 3, 5]}),
}


def component_of(function):
    def forward(self, batch):
        return {}, function(self.model.weight, batch).square().sum()

    return Component(forward, model=nn.Linear(3, 4))


def changed(batch, values):
    return {**batch, **{name: torch.tensor(value) for name, value in values.items()}}


@pytest.mark.parametrize("name", REFUSED)
def test_what_torch_raises_on_is_refused(name):
    function, batch, values, message = REFUSED[name]
    component = component_of(function)
    ranges = bounds(traced(component, batch, **RULES))
    check_ranges(ranges, columns(batch))
    wrong = changed(batch, values)
    if name not in UNREFUSED_BY_TORCH:
        with pytest.raises(RuntimeError):
            component.forward(wrong, True, False)
    message = message or "holds 0 at .*; expected a number other than 0 for .*replace the 0"
    with pytest.raises(ValueError, match=message):
        check_ranges(ranges, columns(wrong))


@pytest.mark.parametrize("name", FINE)
def test_what_torch_computes_is_not(name):
    function, batch, values = FINE[name]
    component = component_of(function)
    ranges = bounds(traced(component, batch, **RULES))
    check_ranges(ranges, columns(changed(batch, values)))
    check_on_jax(component, changed(batch, values))


SELECTING = {
    "ctc": (
        lambda w, b: ctc(w, {**b, "targets": b["targets"][b["targets"] > 0]}),
        CTC,
        {"lengths": [2, 2]},
    ),
    "masked_scatter": (
        lambda w, b: w.masked_scatter(b["mask"], b["x"][b["x"] > 0]),
        {"mask": torch.tensor([False, False, True]), "x": torch.arange(12.0)},
        {"mask": [True, True, True], "x": [0.0] * 5 + [1.0] * 7},
    ),
}


@pytest.mark.parametrize("name", SELECTING)
def test_where_a_size_depends_on_values_the_result_is_nan(name):
    function, batch, values = SELECTING[name]
    component, wrong = component_of(function), changed(batch, values)
    graph = traced(component, batch, **RULES)
    with pytest.raises(RuntimeError):
        component.forward(wrong, True, False)
    check_ranges(bounds(graph), columns(wrong))
    constants = {key: on_jax(value) for key, value in graph.constants.items()}
    for each, is_finite in ((batch, True), (wrong, False)):
        inputs = graph.inputs(find(component).tensors, columns(each))
        results = graph.results(run(graph.module, list(map(on_jax, inputs)), None, constants))
        assert np.isfinite(results.loss) == is_finite


def test_a_sum_leaves_out_ids_after_the_last_offset():
    component = component_of(bagged("sum", end=True))
    ranges = bounds(traced(component, BAGS, **RULES))
    fewer = changed(BAGS, {"offsets": [0, 2, 4]})
    check_ranges(ranges, columns(fewer))
    with torch.no_grad():
        check_on_jax(component, fewer, train=False)


@pytest.mark.filterwarnings("ignore:indexing with dtype torch.uint8 is now deprecated:UserWarning")
def test_an_index_of_uint8_is_a_mask():
    def forward(self, batch):
        return {}, self.model.weight[batch["mask"]].sum() + self.model.weight[:, batch["m"]].mean()

    batch = {"mask": torch.tensor([2, 0, 1, 0]).byte(), "m": torch.tensor([0, 1, 1]).byte()}
    check_on_jax(Component(forward, model=nn.Linear(3, 4)), batch)
