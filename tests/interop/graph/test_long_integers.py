"""Integers beyond 32 bits in forward: computed on the host, kept within limits, or refused."""

import numpy as np
import pytest
import torch
import transformers
from graph_cases import Component, traced
from test_graph_on_jax import RULES
from torch import nn
from trained import Classifier, make

from medjax_torch import BatchData
from medjax_torch.batches import to_arrays
from medjax_torch.component_state import find
from medjax_torch.graph import TraceError, columns
from medjax_torch.verification import evaluator, verify
from medjax_torch.verification.graph_verification import _on_jax
from medjax_torch.verification.reference import reference

IDS = torch.tensor([[3, 70_000, 12], [9_999, 1, 2]])
DAYS = torch.tensor([19_000, 31_000, 20_500, 7])


def component_of(read, rows=97, **content):
    def forward(component, batch):
        made = read(batch, component)
        if made.is_floating_point():
            return {}, (component.model.weight[0, 0] * made).mean()
        return {"made": made}, component.model(made).square().mean()

    return Component(forward, model=nn.Embedding(rows, 2), **content)


def agree(component, batch, graph, train=True):
    """Assert that JAX gives what torch does, and return the largest difference."""
    constants = {name: value.numpy() for name, value in graph.device.constants.items()}

    def call(values):
        return component.forward(values, return_loss=True, eval_mode=not train)

    result = verify(call, find(component), batch, graph, constants)
    # The integers are equal, not only near.
    in_torch = reference(call, find(component), batch, train=train).outputs
    in_jax = _on_jax(find(component), batch, graph, constants, evaluator(graph)).outputs
    for name, expected in in_torch.items():
        np.testing.assert_array_equal(in_jax[name], expected)
    return result


def hashed(x):
    return (x ^ (x >> 16)) * 0x45D9F3B


ON_HOST = {
    "a hash": lambda b, c: (b["ids"] * 2654435761) % 97,
    "a hash that wraps in 64 bits": lambda b, c: hashed(hashed(b["ids"])) * 2654435761 % 97,
    "seconds": lambda b, c: (b["days"] * 86_400 // 604_800) % 97,
    "a shift": lambda b, c: (b["ids"] << 40 >> 38) & 63,
    "a constant": lambda b, c: torch.full((), 2**40) % 97 + b["ids"] % 3,
    "a sum": lambda b, c: b["big"].sum(-1) % 89,
    "a float": lambda b, c: (b["days"] * 86_400).float() / 1e9,
    "a product with a weight": lambda b, c: (b["days"] * 86_400) * c.model.weight[0, 0] / 1e9,
    "a power": lambda b, c: (b["ids"] ** 3) % 97,
    "a running sum": lambda b, c: b["big"].cumsum(-1) % 97,
    "a comparison": lambda b, c: (b["days"] * 86_400 > 2_000_000_000).long(),
    "a large column": lambda b, c: b["huge"] % 97,
    "the largest": lambda b, c: (b["big"] * 3).amax(-1) // 2**27,
    "days of a float64": lambda b, c: (b["stamp"] // 86_400).long() % 97,
    "seconds of a float64": lambda b, c: (b["stamp"] - 1.69992e9).float() / 86_400,
    "a part of a float64": lambda b, c: (b["stamp"] > 1_699_919_999.5).long(),
    "an integer made of a large float": lambda b, c: (b["days"] * 2e6).long() % 97,
    "an item": lambda b, c: c.model.weight[:, 0] * (b["days"].sum().item() * 10**6) / 1e9,
    "values added at one place": lambda b, c: (
        torch.zeros(3).long().index_put((b["zeros"],), b["large"], accumulate=True) % 97
    ),
    "one value added at one place": lambda b, c: (
        torch.zeros(3).long().index_put((b["zeros"],), b["large"][0], accumulate=True) % 97
    ),
    "rows added at one place": lambda b, c: (
        torch.zeros(2, 3, 2)
        .long()
        .index_put((b["zeros"][:1, None], b["zeros"]), b["large"][0], accumulate=True)
        .sum(0)
        % 97
    ),
    "values added with a factor": lambda b, c: (
        torch.zeros(3).long().index_add(0, b["zeros"][:2], b["large"][:2], alpha=1_000_000) % 97
    ),
    "a product at one place": lambda b, c: (
        torch.ones(3).long().scatter_reduce(0, b["zeros"][:7], b["large"][:7], "prod") % 97
    ),
    "several": lambda b, c: (b["ids"] * 2654435761 % 97 + b["ids"] * 31_415_926_535 % 89) // 2,
}
BATCH = {
    "ids": IDS,
    "zeros": torch.zeros(5000, dtype=torch.long),
    "large": torch.full((5000,), 1_000_000),
    "days": DAYS,
    "big": torch.tensor([[2**30, 2**30, 2**30 + 5], [1, 2, 3]]),
    "huge": torch.tensor([2**40 + 3, -(2**35)]),
    "stamp": torch.tensor([1.7e9, 1_699_920_000.0, 1_699_919_999.0], dtype=torch.float64),
}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", ON_HOST)
def test_what_the_batch_decides_is_computed_on_the_host(name, train):
    component = component_of(ON_HOST[name])
    used = {column: BATCH[column] for column in BATCH}
    graph = traced(component, used, train, **RULES)
    assert graph.host_part is not None
    assert len(graph.host_part.device.module.graph.nodes) <= len(graph.module.graph.nodes)
    agree(component, used, graph, train)


ON_DEVICE = {
    "positions": lambda b, c: (b["ids"] != 1).long().cumsum(1) * (b["ids"] != 1) + 1,
    "a remainder": lambda b, c: b["ids"] % 97,
    "a place": lambda b, c: (b["ids"] * 0.5).argmax(-1) + 1,
    "a comparison": lambda b, c: (b["ids"] > 5).long() + 2,
    "the limits of int64": lambda b, c: (
        b["ids"].masked_fill(b["ids"] > 50, torch.iinfo(torch.int64).max).amin(-1)
    ),
    "a float64 made float": lambda b, c: b["stamp"].unsqueeze(0).float() / 1e9,
    "int32 wraps": lambda b, c: (b["ids"].int() * 2_000_003).remainder(97).long(),
}


@pytest.mark.parametrize("name", ON_DEVICE)
def test_what_cannot_leave_stays_on_the_device_without_a_check(name):
    component = component_of(ON_DEVICE[name])
    graph = traced(component, BATCH, **RULES)
    assert (graph.host_part, graph.limits) == (None, ())
    agree(component, BATCH, graph)


def test_an_integer_made_of_a_float_is_handed_on():
    component = component_of(lambda b, c: (b["x"] * 10).long())
    batch = {"x": torch.tensor([0.3, 0.7, 9.69])}
    graph = traced(component, batch, **RULES)
    assert len(graph.host_part.names) == 1
    agree(component, batch, graph)
    completed = graph.completed({"x": torch.tensor([0.3, 2e9, 9.69])})
    with pytest.raises(ValueError, match=r"_to_copy .*holds 20000000000 .*does not fit"):
        to_arrays({name: completed[name] for name in graph.device.columns})


def test_what_may_leave_later_has_limits():
    component = component_of(lambda b, c: (b["days"] * 24) % 97)
    graph = traced(component, BATCH, **RULES)
    assert graph.host_part is None
    (limit,) = graph.limits
    assert (limit.column, limit.high * 24 < 2**31, limit.high >= 16 * 31_000) == (
        "days",
        True,
        True,
    )
    assert graph.fits(BATCH)
    later = {**BATCH, "days": DAYS * 100_000}
    assert not graph.fits(later)
    agree(component, later, traced(component, later, **RULES))


REFUSED = {
    "a buffer": lambda b, c: (b["days"] * c.factor) % 97,
    "a place of a parameter": lambda b, c: (
        ((c.model.weight[:, 0].argmax() + 1) * 2_000_000_000 * b["days"]) % 97
    ),
    "random numbers": lambda b, c: torch.randint(1, 5, (2,)) * 2_000_000_000 % 97,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_batch_does_not_decide_is_refused_by_line(name):
    component = component_of(REFUSED[name], factor=torch.tensor(1_000_000))
    with pytest.raises(
        TraceError, match=r"test_long_integers.py:\d+ .*may exceed the device's 32 bits"
    ):
        traced(component, BATCH, **RULES)


def test_a_long_integer_that_forward_returns_is_refused():
    component = Component(
        lambda c, b: ({"long": b["days"] * 10**9}, c.model.weight.sum()), model=nn.Embedding(2, 2)
    )
    with pytest.raises(
        TraceError, match=r"returns an integer at .*may exceed the device's 32 bits"
    ):
        traced(component, BATCH, **RULES)


def test_roberta_has_neither():
    config = transformers.RobertaConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=20,
    )
    model = transformers.RobertaForTokenClassification(config)
    component = Component(lambda c, b: ({}, c.model(**b).loss), model=model)
    batch = {
        "input_ids": torch.randint(2, 50, (2, 6)),
        "attention_mask": torch.ones(2, 6, dtype=torch.int64),
        "labels": torch.tensor([[0, 1, 1, 0, 1, -100]] * 2),
    }
    graph = traced(component, columns(batch), **RULES)
    assert (graph.host_part, graph.limits) == (None, ())


class Hashing(Classifier):
    """Identifiers hashed to the rows of a table, as for words without a vocabulary."""

    def __init__(self):
        super().__init__(optimizer=torch.optim.SGD)
        self.model = nn.EmbeddingBag(31, 3)

    def collate(self, examples):
        ids = torch.tensor([e["ids"] for e in examples])
        return BatchData(ids=ids, y=torch.tensor([e["y"] for e in examples]))

    def forward(self, batch, return_loss, eval_mode):
        logits = self.model((batch["ids"] * 2654435761) % 31)
        return BatchData(logits=logits), nn.functional.cross_entropy(logits, batch["y"])


def test_a_training_equals_torch(tmp_path):
    draw = np.random.default_rng(0)
    # The last items are 64-bit hashes, far beyond what the first batch has.
    data = [
        {"ids": draw.integers(0, 2**high, 5).tolist(), "y": int(draw.integers(3))}
        for high in (10, 10, 10, 10, 40, 40)
    ]
    component, expected = Hashing(), Hashing()
    arguments = {"train": data, "evaluated": data, "batch_size": 6, "nb_training_epochs": 2}
    make(tmp_path, component, learning_rate=0.5, **arguments).train()
    optimizer = expected.configure_optimizer(0.5)
    for _ in range(2):
        optimizer.zero_grad()
        expected.forward(expected.collate(data), True, False)[1].backward()
        optimizer.step()
    torch.testing.assert_close(component.model.weight, expected.model.weight)


class Hours(Hashing):
    """Fits into 32 bits in the first batches and not in the last one."""

    def collate(self, examples):
        days = torch.tensor([e["days"] for e in examples])
        return BatchData(days=days, y=torch.tensor([e["y"] for e in examples]))

    def forward(self, batch, return_loss, eval_mode):
        logits = self.model((batch["days"][:, None] * 24) % 31)
        return BatchData(logits=logits), nn.functional.cross_entropy(logits, batch["y"])


def test_a_later_batch_beyond_the_limits_gets_its_own_graph(tmp_path):
    data = [{"days": day, "y": day % 3} for day in (3, 4, 9, 12, 20_000, 10**9 + 7)]
    component, expected = Hours(), Hours()
    arguments = {"train": data, "evaluated": data, "batch_size": 2, "nb_training_epochs": 1}
    order = []
    collate = component.collate
    component.collate = lambda examples: order.append(examples) or collate(examples)
    make(tmp_path, component, learning_rate=0.5, **arguments).train()
    optimizer = expected.configure_optimizer(0.5)
    for examples in order[-6:-3]:
        optimizer.zero_grad()
        expected.forward(expected.collate(examples), True, False)[1].backward()
        optimizer.step()
    torch.testing.assert_close(component.model.weight, expected.model.weight)
