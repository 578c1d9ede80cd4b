"""Graphs that differ from torch are refused; float32 noise is not."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from graph_cases import Component, traced
from test_graph_on_jax import RULES
from torch import nn
from torch.nn import functional as F

from medjax_torch.component_state import find
from medjax_torch.lowerings.table import TABLE, Kind, Lowering
from medjax_torch.verification import VerificationError, verify
from medjax_torch.verification.comparison import differences
from medjax_torch.verification.reference import Outcome

aten = torch.ops.aten
BATCH = {
    "x": torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0)),
    "mask": torch.tensor([[1, 1, 1, 1, 0]] * 3 + [[1, 1, 0, 0, 0]] * 3),
    "y": torch.tensor([0, 2, 1, 1, 0, 2]),
}


def verified(forward, batch, train=True, other=None, **content):
    """Verify the graph of `forward`, or of another function, against `forward` itself."""
    component = Component(forward, **content)
    graph = traced(Component(other or forward, **content), batch, train, **RULES)
    return verify(
        lambda values: component.forward(values, return_loss=True, eval_mode=not train),
        find(component),
        batch,
        graph,
        {name: value.numpy() for name, value in graph.constants.items()},
    )


def attending(
    component, batch, *, mask=True, detached=True, scale=1.0, rate=0.1, kept=True, best=True
):
    hidden = F.gelu(component.inner(batch["x"]))
    padding = batch["mask"] == 0 if mask else None
    hidden = hidden + component.attention(hidden, hidden, hidden, padding)[0]
    hidden = component.norm(hidden.flatten(0, 1)).view_as(hidden)
    center = hidden.mean((0, 1))
    hidden = F.dropout(hidden - (center.detach() if detached else center), rate)
    logits = component.outer(hidden.mean(1))
    loss = F.cross_entropy(logits, batch["y"]) * scale
    if kept:
        component.seen += 1
    return {"logits": logits, "best": logits.argmax(-1) if best else batch["y"]}, loss


def content():
    torch.manual_seed(0)
    return {
        "inner": nn.Linear(8, 8),
        "attention": nn.MultiheadAttention(8, 2, batch_first=True),
        "norm": nn.BatchNorm1d(8),
        "outer": nn.Linear(8, 3),
        "seen": torch.tensor(0),
    }


@pytest.mark.parametrize("train", [True, False])
def test_correct_results_pass(train):
    result = verified(attending, BATCH, train, **content())
    assert 0 < result.relative < 1e-4
    state = 10 + 4
    assert result.results == 1 + 2 + state + (10 if train else 0)


ERRORS = {
    "a mask left out": ({"mask": False}, "the gradient of attention.in_proj_weight"),
    "a gradient that flows through a detach": ({"detached": False}, "the gradient of norm.bias"),
    "a loss one percent too large": ({"scale": 1.01}, "the loss"),
    "another rate of dropout": ({"rate": 0.2}, "output logits"),
    "state left as it was": ({"kept": False}, "seen after the step"),
    "another integer output": ({"best": False}, "output best"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_named(name):
    options, wrong = ERRORS[name]

    def other(component, batch):
        return attending(component, batch, **options)

    with pytest.raises(VerificationError) as error:
        verified(attending, BATCH, other=other, **content())
    assert f"\n  {wrong}: " in str(error.value)
    assert "Options(verify=False) would train anyway" in str(error.value)


@pytest.mark.parametrize(
    ("target", "function"),
    [
        (aten.gelu.default, lambda x, approximate="none": jnp.maximum(x, 0)),
        (aten._softmax.default, lambda x, dim, half: jnp.exp(x) / jnp.exp(x).sum()),
        (aten.sum.dim_IntList, lambda x, dim, keep=False: 1.01 * x.sum(tuple(dim), keepdims=keep)),
    ],
    ids=["gelu", "softmax", "sum"],
)
@pytest.mark.parametrize("train", [True, False])
def test_a_wrong_lowering_is_found(monkeypatch, target, function, train):
    def forward(component, batch):
        hidden = F.gelu(component.inner(batch["x"])).softmax(-1)
        return {"hidden": hidden}, (hidden * hidden).sum((0, 1, 2))

    monkeypatch.setitem(TABLE, target, Lowering(function, Kind.PLAIN))
    with pytest.raises(VerificationError, match=r"the loss: relative difference .*JAX, .*torch"):
        verified(forward, BATCH, train, inner=nn.Linear(8, 8))


def test_a_few_of_the_largest_differences_are_shown():
    layers = nn.Sequential(*(nn.Linear(8, 8) for _ in range(6)))

    def forward(component, batch):
        return {}, component.layers(batch["x"]).square().mean()

    def other(component, batch):
        outputs, loss = forward(component, batch)
        return outputs, loss + 0.01 * component.layers[2].weight.square().sum()

    with pytest.raises(VerificationError) as error:
        verified(forward, BATCH, other=other, layers=layers)
    first = str(error.value).splitlines()[1]
    assert first.startswith("  the gradient of layers.2.weight: relative difference")

    def doubled(component, batch):
        return forward(component, batch)[0], 2 * forward(component, batch)[1]

    with pytest.raises(VerificationError, match="13 of 25 results differ") as error:
        verified(forward, BATCH, other=doubled, layers=layers)
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-3]) == (12, "  and 5 more")


def test_the_parameters_with_a_gradient_are_compared():
    def forward(component, batch):
        return {}, component.used(batch["x"]).sum()

    def other(component, batch):
        return {}, forward(component, batch)[1] + 0 * component.unused.weight.sum()

    layers = {"used": nn.Linear(8, 1), "unused": nn.Linear(2, 2)}
    with pytest.raises(VerificationError, match=r"gradient of unused.weight: only in JAX"):
        verified(forward, BATCH, other=other, **layers)
    with pytest.raises(VerificationError, match=r"gradient of unused.weight: only in torch"):
        verified(other, BATCH, other=forward, **layers)


@pytest.mark.parametrize("train", [True, False])
def test_a_model_of_transformers_with_dropout(train):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )

    def forward(component, batch):
        output = component.model(**batch)
        return {"logits": output.logits, "tags": output.logits.argmax(-1)}, output.loss

    batch = {
        "input_ids": torch.randint(1, 40, (2, 6)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[0, 1, 2, 2, 0, -100], [1, 0, 0, 2, -100, -100]]),
    }
    model = transformers.BertForTokenClassification(config)
    assert verified(forward, batch, train, model=model).relative < 1e-5


def test_a_deep_float32_model_passes():
    torch.manual_seed(0)

    def forward(component, batch):
        hidden = batch["x"]
        for layer in component.layers:
            hidden = hidden + layer(hidden).relu()
        return {"hidden": hidden}, hidden.square().mean()

    layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(30))
    assert verified(forward, BATCH, layers=layers).relative < 1e-4


def test_gradients_that_are_only_noise_pass():
    """The gradients of a bias before a batch norm and of an attention's key bias are noise."""
    torch.manual_seed(0)

    def forward(component, batch):
        hidden = component.model(batch["x"].repeat(1, 1, 2000))
        pooled = hidden.mean(2).unsqueeze(1)
        hidden = component.attention(pooled, pooled, pooled)[0]
        return {}, F.cross_entropy(hidden[:, 0], batch["y"])

    model = nn.Sequential(nn.Conv1d(5, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
    attention = nn.MultiheadAttention(4, 1)
    verified(forward, BATCH, model=model, attention=attention)


def test_bfloat16_has_its_own_tolerance():
    torch.manual_seed(0)

    def forward(component, batch):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = component.layers(batch["x"])
        return {"hidden": hidden}, hidden.float().square().mean()

    layers = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
    assert 1e-4 < verified(forward, BATCH, layers=layers).relative < 6e-2


def rectified():
    """Layers with ReLU and batch norm, where single elements differ by more than noise."""
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU())
        for _ in range(9)
    ]
    return nn.Sequential(nn.Conv1d(5, 16, 1), *blocks)


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)]
)
def test_rectified_networks_pass(dtype):
    def forward(component, batch):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = component.layers(batch["x"].repeat(2, 1, 8))
        return {"hidden": hidden}, hidden.float().square().mean()

    def wrong(component, batch):
        outputs, loss = forward(component, batch)
        return outputs, loss + component.layers[5][0].weight.square().sum()

    assert verified(forward, BATCH, layers=rectified()).relative < (
        1e-4 if dtype == torch.float32 else 0.5
    )
    with pytest.raises(VerificationError, match=r"gradient of layers\.5\.0\.weight"):
        verified(forward, BATCH, other=wrong, layers=rectified())


@pytest.mark.parametrize("masked", [torch.finfo(torch.float32).min, -1e9, -1e4, -torch.inf])
def test_an_error_is_not_hidden_by_masked_scores(masked):
    def forward(component, batch, factor=1.0):
        logits = component.outer(batch["x"]) * factor
        logits = logits.masked_fill((batch["mask"] == 0).unsqueeze(-1), masked)
        return {"logits": logits}, F.cross_entropy(logits[:, 0], batch["y"])

    def wrong(component, batch):
        return forward(component, batch, 1.05)

    content = {"outer": nn.Linear(8, 3)}
    assert verified(forward, BATCH, **content).relative < 1e-5
    with pytest.raises(VerificationError, match="output logits"):
        verified(forward, BATCH, other=wrong, **content)


def test_sparse_gradients_are_compared():
    def forward(component, batch):
        return {}, F.cross_entropy(component.table(batch["y"]), batch["y"])

    verified(forward, BATCH, table=nn.Embedding(3, 3, sparse=True))


def outcome(**outputs):
    arrays = {name: np.asarray(value) for name, value in outputs.items()}
    return Outcome(np.float32(1), {}, arrays, {})


def largest(actual, expected, rounded=None):
    sides = ("one", "other")
    return differences(outcome(x=actual), outcome(x=expected), sides, rounded)[0]


NEAR = [
    ([1.0, 2.0], [1.0, 2.0 + 1e-6]),
    ([float("nan"), 1.0], [float("nan"), 1.0]),
    ([-np.inf, 1.0], [-np.inf, 1.0]),
    ([1e-9, 0.0], [0.0, 0.0]),
    (np.float32([-3e38, 1]), np.float32([-3e38, 1])),
    (np.arange(300), np.arange(300) + (np.arange(300) == 7)),
    (7, 8),
    ([], []),
    (1j, 1j + 1e-7),
]
FAR = [
    ([1.0, 2.0], [1.0, 2.1]),
    ([float("nan"), 1.0], [1.0, 1.0]),
    ([1.0, 1.0], [float("nan"), 1.0]),
    ([-np.inf, 1.0], [np.inf, 1.0]),
    ([1.0], [[1.0]]),
    (np.arange(300), np.arange(300) + (np.arange(300) % 9 == 0)),
    (7, 9),
    ([True, False, True], [False, True, True]),
    (np.eye(40)[0] * 0.1 + np.ones(40), np.ones(40)),
]


@pytest.mark.parametrize(("actual", "expected"), NEAR)
def test_what_counts_as_equal(actual, expected):
    assert largest(actual, expected).relative < 1e-5


@pytest.mark.parametrize(("actual", "expected"), FAR)
def test_what_counts_as_different(actual, expected):
    assert largest(actual, expected).relative > 1e-3


def test_integers_not_explained_by_rounding_are_compared_exactly():
    one, other = np.arange(300), np.arange(300) + (np.arange(300) == 7)
    assert largest(one, other, rounded={"x"}).relative == 0
    assert largest(one, other, rounded=()).relative > 1e-3
    assert str(largest(one, other, ())).endswith("largest at [7]: 7 in one, 8 in other")
