"""Recording each distinct operation once must give the graph of recording all of them."""

import pytest
import torch
from torch import fx, nn

from medjax_torch.graph import passes
from medjax_torch.graph.environment import tracing
from medjax_torch.graph.repeated_operations import RepetitionError, rewrite_each_once
from medjax_torch.lowerings import decompositions

RULES = passes.Rules(
    before_autograd=decompositions.before_autograd(),
    after_autograd=decompositions.after_autograd(),
)
BLOCKS = 8


class Block(nn.Module):
    """Attention, dropout, normalisation over rows and features, and writes in place."""

    def __init__(self):
        super().__init__()
        self.attend = nn.Linear(4, 12)
        self.merge = nn.Linear(4, 4)
        self.rows, self.features = nn.BatchNorm1d(4), nn.LayerNorm(4)

    def forward(self, x):
        query, key, value = self.attend(x).transpose(0, 1).chunk(3, dim=-1)
        scale = torch.tensor(2.0)
        weights = (query @ key.transpose(1, 2) / scale).softmax(-1)
        mixed = nn.functional.dropout(weights @ value, 0.5, self.training).transpose(0, 1)
        merged = torch.relu_(self.rows(self.merge(mixed).flatten(0, 1)))
        return self.features(x + merged.view(x.shape))


@pytest.fixture
def recorded():
    """The first recording of many blocks, forward and backward, and its inputs."""
    torch.manual_seed(0)
    module = nn.Sequential(*(Block() for _ in range(BLOCKS)))
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}

    def forward(x, mask, *values):
        own = {
            name: value.clone().requires_grad_(tensors[name].requires_grad)
            for name, value in zip(tensors, values, strict=True)
        }
        loss = torch.func.functional_call(module, own, (x,)).masked_fill_(mask, 0.0).square().mean()
        learned = [value for value in own.values() if value.requires_grad]
        after = [value for value in own.values() if not value.requires_grad]
        return [loss.detach(), *torch.autograd.grad(loss, learned), *after]

    inputs = [torch.randn(3, 2, 4), torch.zeros(3, 2, 4, dtype=torch.bool)]
    inputs += [tensor.detach() for tensor in tensors.values()]
    with tracing({}):
        first = passes.record(forward, inputs, "fake", RULES)
    return first, inputs


def lines(graph):
    """Return a graph's operations, with the positions of nodes in place of their names."""
    places = {node: place for place, node in enumerate(graph.nodes)}
    found = []
    for node in graph.nodes:
        given = fx.map_arg((node.args, node.kwargs), lambda each: f"%{places[each]}")
        value = node.meta.get("val")
        kind = (value.shape, value.dtype, value.stride()) if hasattr(value, "stride") else None
        found.append((str(node.target) * (node.op != "placeholder"), repr(given), kind))
    return found


def functional(first, inputs):
    with tracing({}):
        return passes.functionalize(first, inputs, "fake", RULES)


def test_graph_equals_that_of_recording_every_operation(recorded, monkeypatch):
    first, inputs = recorded
    operations = [node for node in first.graph.nodes if node.op == "call_function"]
    for place, node in enumerate(operations):
        node.meta |= {"stack_trace": f"line {place}", "custom": {"block": place // 50}}
    graph = functional(first, inputs).graph

    def refuse(*_):
        raise RepetitionError

    monkeypatch.setattr(passes, "rewrite_each_once", refuse)
    expected = functional(first, inputs).graph
    assert lines(graph) == lines(expected)
    # torch repeats a view of a tensor that was written to where it is next used.
    skipped = torch.ops.aten.view_copy.default
    for name in ("stack_trace", "custom"):
        passed_on = [
            [
                node.meta.get(name)
                for node in each.nodes
                if node.op == "call_function" and node.target is not skipped
            ]
            for each in (graph, expected)
        ]
        assert passed_on[0] == passed_on[1]
        assert len({str(each) for each in passed_on[0]}) > BLOCKS


def test_repetitions_are_not_recorded(recorded, monkeypatch):
    first, inputs = recorded
    sizes = []

    def counted(module, rewrite):
        def counting(small, examples):
            sizes.append(len(small.graph.nodes))
            return rewrite(small, examples)

        return rewrite_each_once(module, counting)

    monkeypatch.setattr(passes, "rewrite_each_once", counted)
    functional(first, inputs)
    assert 0 < sum(sizes) < len(first.graph.nodes) / 4


@pytest.mark.parametrize("write", ["view", "input"])
def test_writes_to_parts_and_to_inputs_are_left_to_torch(write):
    def function(x):
        own = x if write == "input" else x.clone()
        for _ in range(300):
            own[0].add_(1.0) if write == "view" else own.add_(1.0)
        return [own * 2]

    with tracing({}):
        first = passes.record(function, [torch.ones(2)], "fake", RULES)
        with pytest.raises(RepetitionError):
            rewrite_each_once(first, lambda *_: pytest.fail("was recorded again"))
    graph = functional(first, [torch.ones(2)])
    result = fx.Interpreter(graph).run(torch.ones(2))[0]
    assert result.tolist() == ([602.0, 2.0] if write == "view" else [602.0, 602.0])
