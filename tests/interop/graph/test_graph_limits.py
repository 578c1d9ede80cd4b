"""Values that forward reads are guarded; what cannot be traced is refused, naming the line."""

import random

import numpy as np
import pytest
import torch
from graph_cases import Component, check, compare, eager, guard_values, traced
from torch import nn
from torch.nn.utils import rnn

from medjax_torch.component_state import find
from medjax_torch.graph import Guard, TraceError, signature


@pytest.fixture
def batch():
    torch.manual_seed(0)
    return {"x": torch.randn(4, 3), "ids": torch.tensor([1, 0, 2, 0])}


def component_of(middle, **content):
    def forward(self, batch):
        outputs = middle(self, self.model(batch["x"]), batch)
        return {"outputs": outputs}, outputs.pow(2).sum()

    return Component(forward, model=nn.Linear(3, 2), **content)


def branch(self, hidden, batch):
    if (batch["ids"] > 0).sum() > 1:
        return hidden * 2
    return hidden


def by_parameter(self, hidden, batch):
    return hidden * 2 if self.model.bias[0] > 5 else hidden


def selected(self, hidden, batch):
    mask = batch["ids"] > 0
    chosen = hidden.detach()[mask]
    mask[:] = True
    return chosen * hidden[mask].sum()


def assigned(self, hidden, batch):
    hidden = hidden.clone()
    hidden[batch["ids"] == 0] = torch.ones(int((batch["ids"] == 0).sum()), 2)
    return hidden


def listed(self, hidden, batch):
    return torch.stack([hidden[i] for i in batch["ids"].tolist()])


@pytest.mark.parametrize(
    "middle",
    [
        branch,
        selected,
        assigned,
        listed,
        lambda self, hidden, batch: hidden[: int(batch["ids"].max())],
        lambda self, hidden, batch: hidden[batch["ids"].nonzero().squeeze(1)],
        lambda self, hidden, batch: hidden.masked_select((batch["ids"] > 0).unsqueeze(1)),
        lambda self, hidden, batch: hidden.repeat_interleave(batch["ids"], dim=0),
        lambda self, h, batch: h if torch.equal(batch["ids"], batch["ids"].sort()[0]) else 2 * h,
    ],
    ids=lambda f: f.__name__,
)
def test_values_that_python_looked_at_are_guarded(batch, middle):
    component = component_of(middle)
    variants = []
    batches = [batch, {**batch, "ids": torch.tensor([0, 0, 0, 1])}, {**batch, "x": 2 * batch["x"]}]
    for each in batches:
        valid = [g for g in variants if g.holds(guard_values(g, component, each))]
        assert len(valid) <= 1
        if not valid:
            valid = [check(component, each)]
            variants += valid
            assert valid[0].guards
            assert valid[0].holds(guard_values(valid[0], component, each))
        loss, gradients, outputs, _ = eager(component, each)
        compare(valid[0], component, each, loss, gradients, outputs)
    assert len(variants) == 2


def test_a_guard_on_a_parameter_follows_it(batch):
    component = component_of(by_parameter)
    graph = check(component, batch)
    (guard,) = graph.guards
    assert guard.expected is False
    assert "in by_parameter: return hidden * 2 if self.model.bias[0] > 5" in guard.line
    with torch.no_grad():
        component.model.bias += 10
    assert not graph.holds(guard_values(graph, component, batch))


def test_looking_at_constants_needs_no_guard(batch):
    graph = check(component_of(lambda self, h, b: h * sum(torch.arange(3).tolist())), batch)
    assert graph.guards == ()
    assert graph.guard_module is None


def test_floats_hold_within_rounding():
    guard = Guard(0.1, "", "")
    assert guard.holds(0.1 + 1e-9)
    assert not guard.holds(0.1001)
    assert Guard(float("nan"), "", "").holds(float("nan"))
    assert not Guard(1, "", "").holds(2)


def packed(self, hidden, batch):
    pack = rnn.pack_padded_sequence(
        hidden.unsqueeze(0), batch["lengths"], batch_first=True, enforce_sorted=False
    )
    return pack.data


def random_branch(self, hidden, batch):
    return hidden * 2 if torch.rand(()) < 0.5 else hidden


def in_method(self, hidden, batch):
    return numpy_there(hidden) * hidden


def numpy_there(hidden):
    return torch.from_numpy(hidden.detach().numpy())


def unknown_generator(self, hidden, batch):
    return hidden * self.generator.normal()


LINE = r" at .*test_graph_limits\.py:\d+ in "


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (packed, "on the rows of a packed sequence" + LINE + ".*pad_packed_sequence"),
        (random_branch, "branches on a random number" + LINE + r".*draw with random.random\(\)\.$"),
        (in_method, r"calls Tensor\.numpy" + LINE + "numpy_there: .*in prepare_batch"),
        (lambda self, h, b: h * np.asarray(b["ids"])[0], "calls numpy.asarray on a tensor"),
        (lambda self, h, b: h * random.gauss(0, 1), "draws from random" + LINE + "<lambda>"),
        (lambda self, h, b: h * np.random.rand(), "draws from numpy.random" + LINE + "<lambda>"),
        (unknown_generator, "draws from generator" + LINE + "unknown_generator"),
        (
            lambda self, h, b: h * len(b["x"].unique(dim=0)),
            "calls aten.unique_dim.default" + LINE + ".*mask of fixed shape",
        ),
        (lambda self, h, b: (torch.manual_seed(3), h)[1], "forward sets torch's seed"),
        (lambda self, h, b: h * GLOBAL, "cannot be reached from the component"),
        (lambda self, h, b: h * KEPT.view(-1).add_(1), "writes to a tensor" + LINE + "<lambda>"),
        (lambda self, h, b: h.detach(), "depends on none of the 2 trained parameters"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_refusals_name_the_line(batch, middle, message):
    component = component_of(middle, generator=np.random.default_rng(0))
    states = (
        random.getstate(),
        str(np.random.get_state()),
        component.generator.bit_generator.state,
    )
    before = find(component).tensors
    with pytest.raises(TraceError, match=message):
        traced(component, {**batch, "lengths": torch.tensor([2])})
    assert states == (
        random.getstate(),
        str(np.random.get_state()),
        component.generator.bit_generator.state,
    )
    assert all(find(component).tensors[name] is tensor for name, tensor in before.items())


def grown(self, hidden, batch):
    if self.first.numel() == 0:
        self.first = batch["x"].mean()
    return hidden * self.first


def test_a_tensor_that_grows_from_none_is_refused(batch):
    component = component_of(grown, first=torch.empty(0))
    with pytest.raises(TraceError, match=r"replaces first, which has no elements, .* in __init__"):
        traced(component, batch)
    assert component.first.shape == (0,)
    component.first = torch.ones(())
    check(component, batch)


GLOBAL = nn.Parameter(torch.ones(()))
KEPT = torch.ones(2)


def test_lengths_that_are_fixed_may_be_packed(batch):
    component = component_of(packed)
    assert check(component, {**batch, "lengths": [2]}).guards == ()


def test_the_components_own_error_is_torchs(batch):
    component = component_of(lambda self, hidden, batch: hidden @ batch["x"])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught:
        traced(component, batch)
    assert not isinstance(caught.value, TraceError)
    with pytest.raises(KeyError, match="missing"):
        traced(component_of(lambda self, hidden, batch: batch["missing"]), batch)


def test_forward_must_return_a_scalar_loss(batch):
    with pytest.raises(ValueError, match="did not return a 'loss'"):
        traced(Component(lambda self, b: ({}, None)), batch)
    vector = Component(lambda self, b: ({}, self.model(b["x"])), model=nn.Linear(3, 2))
    with pytest.raises(TraceError, match=r"a loss of shape \(4, 2\); expected .* one element"):
        traced(vector, batch)


def test_an_output_that_hides_tensors_is_refused(batch):
    class Cache:
        def __init__(self, values):
            self.values = values

    def forward(self, batch):
        hidden = self.model(batch["x"])
        return {"cache": Cache([hidden])}, hidden.sum()

    with pytest.raises(TraceError, match="a Cache at 'cache' that holds tensors"):
        traced(Component(forward, model=nn.Linear(3, 2)), batch)


def test_signature_tells_apart_what_a_graph_depends_on():
    base = {"x": torch.ones(2, 3), "k": 1, "names": ["a", "b"], "array": np.arange(3), "f": 0.5}
    assert signature(base) == signature({**base, "x": torch.zeros(2, 3)})
    hash(signature(base))
    for change in (
        {"x": torch.ones(3, 2)},
        {"x": torch.ones(2, 3, dtype=torch.int64)},
        {"k": 2},
        {"k": True},
        {"names": ["a", "c"]},
        {"names": ["a"]},
        {"names": ("a", "b")},
        {"array": np.arange(3) + 1},
        {"f": -0.5},
        {"more": None},
    ):
        assert signature({**base, **change}) != signature(base), change
    with pytest.raises(ValueError, match="a set at 'bad'"):
        signature({"bad": {1}})
