"""Checks of values that torch makes in forward, which hold for every batch of a graph."""

import functools
import math

import jax
import pytest
import torch
from graph_cases import Component, check, eager, guard_values, traced
from test_graph_on_jax import RULES, on_jax
from torch import nn
from torch.nn import functional as F

from medjax_torch.component_state import find
from medjax_torch.graph import Rules, columns, trace
from medjax_torch.lowerings import run

GOOD = {"x": torch.tensor([[0.5, 1.0], [0.25, 0.75]]), "n": torch.tensor([1, 5])}
BAD = {"x": torch.tensor([[0.5, 1.5], [-0.5, 0.75]]), "n": torch.tensor([1, 15])}


def component(look):
    def forward(c, batch):
        made = look(c, batch)
        x = batch["x"] if made is None else made
        return {}, (c.model.weight * x).sum() + batch["n"].sum()

    return Component(forward, model=nn.Linear(2, 2))


def loss_on_jax(graph, parts, batch):
    inputs = graph.inputs(find(parts).tensors, columns(batch))
    with jax.default_matmul_precision("highest"):
        values = run(graph.module, [on_jax(v) for v in inputs], jax.random.key(0), {})
    return float(graph.results(values).loss)


def changing(parts, batch, train=True):
    """Trace as training does, in which the weights change."""
    call = functools.partial(parts.forward, return_loss=True, eval_mode=not train)
    found = find(parts)
    return trace(call, found, batch, train=train, rules=Rules(**RULES), changing=found.parameters)


OF_THE_BATCH = {
    "_assert_async": lambda c, b: torch._assert_async((b["x"] > 0).all()),
    "_assert_async with a message": lambda c, b: torch._assert_async((b["x"] > 0).all(), "low"),
    "its operator": lambda c, b: torch.ops.aten._assert_async.msg((b["x"] > 0).all(), "low"),
    "_check": lambda c, b: torch._check((b["x"] > 0).all().item()),
    "_check_value": lambda c, b: torch._check_value((b["x"] > 0).all().item(), lambda: "low"),
    "_check_tensor_all": lambda c, b: torch._check_tensor_all(b["x"] > 0),
    "_check of a number": lambda c, b: torch._check(b["n"].max().item() < 10),
    "_assert": lambda c, b: torch._assert((b["x"] > 0).all(), "low"),
    "a target": lambda c, b: F.binary_cross_entropy(b["x"].clamp(0, 1), b["x"]),
    "a target in evaluation": lambda c, b: nn.BCELoss()(b["x"].clamp(0, 1), b["x"]).detach(),
    "bernoulli": lambda c, b: torch.bernoulli(b["x"]) * 0,
    "bernoulli in place": lambda c, b: torch.zeros(2, 2).bernoulli_(b["x"]) * 0,
    "multinomial": lambda c, b: b["x"] + torch.multinomial(b["x"], 1) * 0,
    "a target among selected": lambda c, b: F.binary_cross_entropy(
        b["x"][b["x"] > -9].clamp(0, 1), b["x"][b["x"] > -9]
    ),
}


@pytest.mark.parametrize("name", OF_THE_BATCH)
def test_a_check_of_the_batch_is_a_guard(name):
    parts = component(OF_THE_BATCH[name])
    graph = check(parts, GOOD, **RULES)
    assert graph.guards
    assert graph.holds(guard_values(graph, parts, GOOD))
    assert not graph.exact
    assert not graph.holds(guard_values(graph, parts, BAD))
    with pytest.raises(Exception) as expected:  # noqa: PT011
        eager(parts, BAD)
    with pytest.raises(type(expected.value)) as caught:
        traced(parts, BAD, **RULES)
    assert str(caught.value) == str(expected.value)


OF_THE_WEIGHTS = {
    "_assert_async": lambda c, b: torch._assert_async((c.model.weight < 9).all()),
    "_check": lambda c, b: torch._check((c.model.weight < 9).all().item()),
    "_check_tensor_all": lambda c, b: torch._check_tensor_all(c.model.weight * b["x"] < 9),
    "a random number": lambda c, b: torch._check_tensor_all(torch.rand(2) < 9),
}


@pytest.mark.parametrize("name", OF_THE_WEIGHTS)
def test_a_check_of_what_changes_is_made_in_the_step(name):
    graph = changing(component(OF_THE_WEIGHTS[name]), GOOD)
    assert not graph.guards
    (condition,) = graph.conditions
    assert (condition.expected, condition.raises) == (True, True)
    assert "test_graph_assertions.py" in condition.line


def test_a_check_of_finiteness_is_recognised():
    parts = component(lambda c, b: torch._check_tensor_all(torch.isfinite(c.model.weight)))
    assert changing(parts, GOOD).conditions[0].is_of_finiteness


SPOILT = {
    "a target": lambda c, b: F.binary_cross_entropy(
        b["x"].clamp(0, 1), 0 * c.model.weight.detach() + b["x"]
    ),
    "bernoulli": lambda c, b: torch.bernoulli(0 * c.model.weight + b["x"]),
    "bernoulli in place": lambda c, b: torch.zeros(2, 2).bernoulli_(0 * c.model.weight + b["x"]),
    "multinomial": lambda c, b: c.model.weight[
        0, torch.multinomial(0 * c.model.weight[0] + b["x"][1], 1)
    ],
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_torch_would_refuse_spoils_the_loss(name):
    parts = component(SPOILT[name])
    graph = changing(parts, GOOD)
    assert (graph.guards, graph.conditions) == ((), ())
    assert [math.isfinite(loss_on_jax(graph, parts, batch)) for batch in (GOOD, BAD)] == [1, 0]


def test_a_check_of_counts_is_still_an_assumption_about_counts():
    def look(c, b):
        chosen = b["x"][b["x"] > 0.3]
        torch._check(chosen.numel() < 4)
        return chosen.sum()

    graph = check(component(look), GOOD, **RULES)
    assert graph.exact == ""
    with pytest.raises(RuntimeError, match="Expected cond to be True"):
        traced(component(look), {**GOOD, "x": GOOD["x"] + 1}, **RULES)
