"""Diagnosis of differences: rounding passes, wrong lowerings and stale graphs are reported."""

import itertools

import jax.numpy as jnp
import pytest
import torch
from graph_cases import Component, traced
from test_graph_on_jax import RULES
from torch import nn
from torch.nn import functional as F
from trained import Classifier, make

from medjax_torch import BatchData, Options
from medjax_torch.component_state import find
from medjax_torch.lowerings import LoweringError
from medjax_torch.lowerings.table import TABLE
from medjax_torch.verification import VerificationError, verify

aten = torch.ops.aten


def verified(component, batch, train=True, graph=None):
    graph = graph or traced(component, batch, train, **RULES)
    return verify(
        lambda values: component.forward(values, return_loss=True, eval_mode=not train),
        find(component),
        batch,
        graph,
        {name: value.numpy() for name, value in graph.constants.items()},
    )


def choosing(component, batch):
    """Scores choices, one of which is right."""
    hidden = torch.tanh(component.inner(batch["x"]))
    scores = component.norm(component.outer(hidden).squeeze(-1).flatten(1))
    return {"scores": scores, "best": scores.argmax(-1)}, F.cross_entropy(scores, batch["y"])


def chooser():
    torch.manual_seed(0)
    return Component(choosing, inner=nn.Linear(8, 8), outer=nn.Linear(8, 1), norm=nn.Identity())


def choices(alike):
    x = torch.randn(4, 1 if alike else 3, 8, generator=torch.Generator().manual_seed(1))
    return {"x": x.expand(4, 3, 8).contiguous(), "y": torch.tensor([0, 2, 1, 1])}


def normalised(component, batch):
    hidden = component.norm(component.inner(batch["x"]).flatten(0, 1))
    return {}, hidden.mul(batch["weights"]).sum()


def test_identical_choices_pass():
    """All gradients are sums that cancel, so only noise is compared."""

    def forward(component, batch):
        hidden = torch.tanh(component.inner(batch["x"])).mean(2)
        scores = component.outer(hidden).squeeze(-1)
        return {"scores": scores}, F.cross_entropy(scores, batch["y"])

    torch.manual_seed(0)
    component = Component(forward, inner=nn.Linear(64, 64), outer=nn.Linear(64, 1))
    x = torch.randn(16, 1, 7, 64).expand(16, 4, 7, 64).contiguous()
    verified(component, {"x": x, "y": torch.randint(0, 4, (16,))})
    verified(chooser(), choices(alike=True))


def test_biases_before_a_normalisation_pass_if_only_they_are_trained():
    torch.manual_seed(0)
    component = Component(normalised, inner=nn.Linear(8, 6), norm=nn.BatchNorm1d(6, affine=False))
    component.inner.weight.requires_grad_(False)
    batch = {"x": torch.randn(16, 40, 8) + 3, "weights": torch.randn(640, 6)}
    verified(component, batch)


def test_a_head_of_zeros_passes():
    component = chooser()
    nn.init.zeros_(component.outer.weight)
    nn.init.zeros_(component.outer.bias)
    for alike in (False, True):
        verified(component, choices(alike))


def one_percent(function):
    return lambda *args, **kwargs: 1.01 * function(*args, **kwargs)


def sign(function):
    return lambda *args, **kwargs: -function(*args, **kwargs)


MUTATIONS = {
    "one percent": one_percent,
    "sign": sign,
    "a missing term": lambda function: lambda x: jnp.zeros_like(x),
}


@pytest.mark.parametrize("alike", [False, True], ids=["a normal point", "zero gradients"])
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_wrong_gradient_is_found_and_named(monkeypatch, name, alike):
    target = aten.exp.default  # the derivative of log-softmax uses it
    row = TABLE[target]
    monkeypatch.setitem(TABLE, target, row._replace(function=MUTATIONS[name](row.function)))
    with pytest.raises(VerificationError) as error:
        verified(chooser(), choices(alike))
    assert "error in a lowering; please report it: the JAX lowering of aten.exp" in str(error.value)


@pytest.mark.parametrize("alike", [False, True], ids=["a normal point", "zero gradients"])
def test_the_line_of_a_wrong_lowering_is_named(monkeypatch, alike):
    row = TABLE[aten.tanh.default]
    monkeypatch.setitem(
        TABLE, aten.tanh.default, row._replace(function=lambda x: jnp.tanh(x) + 1e-3 * x)
    )
    with pytest.raises(
        VerificationError,
        match=r"lowering of aten.tanh.default \(called at .*"
        r"test_diagnosis.py:\d+ in choosing: hidden = torch.tanh",
    ):
        verified(chooser(), choices(alike))


@pytest.mark.parametrize("mutation", [one_percent, sign])
def test_a_wrong_sum_that_cancels_is_detected_in_other_results(monkeypatch, mutation):
    """Each lowering is compared where its result is not noise."""
    for target in (aten.mm.default, aten.mul.Tensor):
        row = TABLE[target]
        with monkeypatch.context() as patch:
            patch.setitem(TABLE, target, row._replace(function=mutation(row.function)))
            with pytest.raises(VerificationError, match="error in a lowering"):
                verified(chooser(), choices(alike=True))


def scaled(component, batch):
    logits = component.inner(batch["x"].mean(1)) * component.scale
    return {"logits": logits}, F.cross_entropy(logits, batch["y"])


def test_a_value_that_changed_after_tracing_is_not_blamed_on_a_lowering():
    component = Component(scaled, inner=nn.Linear(8, 3), scale=1.0)
    batch = choices(alike=False)
    graph = traced(component, batch, **RULES)
    verified(component, batch, graph=graph)
    component.scale = 2.0
    with pytest.raises(VerificationError, match="it reads something that has changed") as error:
        verified(component, batch, graph=graph)
    assert "lowering" not in str(error.value)
    assert "output logits: relative difference" in str(error.value)


def test_a_forward_whose_results_vary_is_reported():
    ticks = itertools.count(1)

    def forward(component, batch):
        loss = component.inner(batch["x"]).square().mean()
        return {}, loss * (1 + 0.1 * next(ticks))

    component = Component(forward, inner=nn.Linear(8, 3))
    with pytest.raises(VerificationError, match="different results each time it runs") as error:
        verified(component, choices(alike=False))
    assert "lowering" not in str(error.value)


def test_a_column_that_was_not_read_is_named():
    def forward(component, batch):
        loss = component.inner(batch["x"]).square().mean()
        return {}, loss * batch.get("weight", 1.0)

    component = Component(forward, inner=nn.Linear(8, 3))
    batch = choices(alike=False)
    graph = traced(component, batch, **RULES)
    with pytest.raises(VerificationError, match=r"forward reads the column 'weight', which") as e:
        verified(component, {**batch, "weight": 0.5, "text": "never read"}, graph=graph)
    assert "lowering" not in str(e.value)


def test_an_exception_in_a_lowering_becomes_a_lowering_error(monkeypatch, tmp_path):
    def broken(x):
        raise TypeError("tanh takes no such thing\nand more of this")

    class Bent(Classifier):
        def forward(self, batch, return_loss, eval_mode):
            logits = torch.tanh(self.model(batch["x"]))
            return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])

    row = TABLE[aten.tanh.default]
    monkeypatch.setitem(TABLE, aten.tanh.default, row._replace(function=broken))
    for verifies in (True, False):
        trainer = make(tmp_path, Bent(), options=Options(verify=verifies))
        with pytest.raises(LoweringError, match=r"calls aten.tanh.default \(at File .*") as error:
            trainer.train()
        assert "TypeError: tanh takes no such thing. Write this line" in str(error.value)
        assert isinstance(error.value.__cause__, TypeError)


def test_numbers_among_the_outputs_are_compared():
    def forward(component, batch):
        return {"n": len(batch["x"])}, component.inner(batch["x"]).square().mean()

    verified(Component(forward, inner=nn.Linear(8, 3)), choices(alike=False))


def test_an_integer_converted_from_a_large_float_is_reported():
    """The device's integers end at 2^31, which rounding of the last digits does not excuse."""

    def forward(component, batch):
        ids = (component.inner(batch["x"])[..., 0] * 1e12).long() % 9
        return {}, component.table(ids).square().mean()

    component = Component(forward, inner=nn.Linear(8, 3), table=nn.Embedding(9, 4))
    with pytest.raises(VerificationError, match=r"\(called at .*1e12.*the device's have 32 bits"):
        verified(component, choices(alike=False))


def test_values_that_float32_cannot_represent_are_reported():
    def forward(component, batch):
        seconds = component.offset + component.inner(batch["x"]).double()
        return {}, (seconds - 1.7e9).square().mean()

    torch.manual_seed(0)
    offset = torch.tensor(1.7e9, dtype=torch.float64)
    component = Component(forward, inner=nn.Linear(8, 3), offset=offset)
    with pytest.raises(VerificationError, match=r"computes in float64"):
        verified(component, choices(alike=False))
