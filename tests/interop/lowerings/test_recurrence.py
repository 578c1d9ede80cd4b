"""Recurrent layers as one operator: its derivative, and where graphs have it."""

import pytest
import torch
from recurrence_calls import CASES
from torch import nn

from medjax_torch.conversion import ConvertedComponent
from medjax_torch.graph.recurrent import Weights, unrolled
from medjax_torch.lowerings.custom_ops import recur
from medjax_torch.verification import verify

WHOLE = {"medjax.recurrence.default", "medjax.recurrence_backward.default"}


def outcome(run, case):
    """Return results and gradients of one direction of a layer, in double precision."""
    kind, *values, backwards = case
    made = [
        value.double().requires_grad_()
        if value is not None and value.is_floating_point()
        else value
        for value in values
    ]
    from_inputs, valid, hidden, cell, *weights = made
    state = (hidden,) if cell is None else (hidden, cell)
    outputs, last = run(kind, from_inputs, valid, state, Weights(*weights), backwards)
    weighed = (outputs.sin() * torch.arange(outputs.numel()).view_as(outputs)).sum()
    loss = weighed + sum((place + 1) * each.square().sum() for place, each in enumerate(last))
    learnt = [value for value in made if value is not None and value.requires_grad]
    return [outputs, *last, *torch.autograd.grad(loss, learnt)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_the_derivative_is_that_of_the_steps(case):
    for one, other in zip(outcome(recur, case), outcome(unrolled, case), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


LAYERS = {
    "LSTM": lambda: nn.LSTM(5, 4, 2, bidirectional=True, proj_size=2, dropout=0.3),
    "GRU": lambda: nn.GRU(5, 4, batch_first=True, bias=False),
    "RNN": lambda: nn.RNN(5, 4, nonlinearity="relu"),
}
BATCH = {"x": torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))}


class Layer(nn.Module):
    """A recurrent layer over tensors; its loss may have a term with the gradient by its input."""

    def __init__(self, name, penalty=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.penalty = LAYERS[name](), penalty

    def forward(self, batch, eval_mode):
        self.train(not eval_mode)
        inputs = batch["x"].detach().requires_grad_()
        outputs, state = self.layer(inputs)
        states = state if isinstance(state, tuple) else (state,)
        loss = outputs.sin().sum() + sum(each.square().sum() for each in states)
        if self.penalty:
            (gradient,) = torch.autograd.grad(loss, inputs, create_graph=True)
            loss = loss + self.penalty * gradient.square().sum()
        return {"outputs": outputs}, loss


def graph_of(layer):
    """Return the graph of a training step, after comparing it with torch."""
    converted = ConvertedComponent(layer, layer.forward, max_variants=1)
    key = converted.graph_of(BATCH, train=True)
    graph, constants = converted.graph(key), converted.constants(key)
    call = converted.call_on(BATCH, train=True)
    assert verify(call, converted.inventory, BATCH, graph, constants).relative < 1e-5
    return graph


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_over_tensors_is_one_operator_for_each_direction(name):
    assert set(graph_of(Layer(name)).operations) >= WHOLE


def test_a_gradient_that_is_differentiated_is_recorded_step_by_step():
    assert WHOLE.isdisjoint(graph_of(Layer("GRU", penalty=0.5)).operations)
