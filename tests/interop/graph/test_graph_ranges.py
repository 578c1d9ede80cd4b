"""Ids out of range are refused before a graph runs, or show as NaN in what it computes."""

import dataclasses

import numpy as np
import pytest
import torch
from graph_cases import Component, traced
from test_graph_on_jax import RULES
from torch import nn
from torch.nn import functional as F
from torch_graphs import functional_graph, on_jax

from medjax_torch.graph import bounds, check_ranges, columns


def ranges_of(forward, batch, train=True, **content):
    content.setdefault("model", nn.Linear(3, 3))
    return bounds(traced(Component(forward, **content), batch, train, **RULES))


def tagged(component, batch):
    hidden = component.model(batch["ids"][:, 1:])
    scores = component.head(hidden).flatten(0, 1)
    return {}, F.cross_entropy(scores, batch["labels"].reshape(-1), ignore_index=-7)


TAGGED = {"model": nn.Embedding(10, 4), "head": nn.Linear(4, 3)}
IDS = torch.tensor([[99, 1, 9], [-5, 0, 2]])
LABELS = torch.tensor([[0, 2], [-7, 1]])


@pytest.mark.parametrize("train", [True, False])
def test_ids_and_labels(train):
    ranges = ranges_of(tagged, {"ids": IDS, "labels": LABELS}, train, **TAGGED)
    ids, labels = ranges.each
    assert (ids.columns, ids.low, ids.high, ids.ignored) == (("ids",), 0, 9, None)
    assert (labels.columns, labels.low, labels.high, labels.ignored) == (("labels",), 0, 2, -7)
    # In range where the column is; of the other, forward looks up a part only.
    assert (ids.column, labels.column) == (None, "labels")
    # What forward does not look up may be anything.
    check_ranges(ranges, {"ids": IDS, "labels": LABELS})
    check_ranges(ranges, {"ids": IDS.numpy(), "labels": LABELS.numpy().astype(np.int32)})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("ids", 10, r"Column 'ids' holds 10 at \[1, 2\]; expected 0 to 9 for aten.embedding"),
        ("ids", -1, r"Column 'ids' holds -1 at \[1, 2\]; expected 0 to 9 .*test_graph_ranges.py:"),
        ("labels", 3, r"'labels' holds 3 at \[1, 1\]; expected 0 to 2, or -7, which is ignored, f"),
        ("labels", -100, r"Column 'labels' holds -100 .* at .*in tagged: return .*cross_entropy"),
    ],
)
def test_what_is_out_of_range_is_named(column, value, message):
    batch = {"ids": IDS.clone(), "labels": LABELS.clone()}
    ranges = ranges_of(tagged, batch, **TAGGED)
    batch[column][-1, -1] = value
    with pytest.raises(ValueError, match=message):
        check_ranges(ranges, batch)


def test_a_column_in_range_is_not_computed_with():
    ranges = ranges_of(tagged, {"ids": IDS, "labels": LABELS}, **TAGGED)
    alone = dataclasses.replace(ranges, each=ranges.each[1:], module=None)
    check_ranges(alone, {"ids": IDS, "labels": LABELS.clamp(min=0)})
    with pytest.raises(TypeError):  # the ignored label is not in range by itself
        check_ranges(alone, {"ids": IDS, "labels": LABELS})


def test_the_narrower_of_two_ranges_counts_and_a_column_that_both_have():
    def forward(component, batch):
        return {}, (component.model.weight[batch["i"]] + component.wide[batch["i"]]).sum()

    ranges = ranges_of(forward, {"i": torch.tensor([0, 1])}, wide=nn.Parameter(torch.ones(5, 3)))
    (bound,) = ranges.each
    assert (bound.low, bound.high, bound.column) == (-3, 2, "i")
    with pytest.raises(ValueError, match=r"'i' holds 3 at \[1\]; expected -3 to 2"):
        check_ranges(ranges, {"i": torch.tensor([0, 3])})


def looked_up(lookup):
    return lambda component, batch: ({}, (lookup(component.model.weight, batch["i"]) * 1.0).sum())


LOOKUPS = {
    "embedding": (lambda w, i: F.embedding(i, w), 0, 2),
    "bag": (lambda w, i: F.embedding_bag(i[None], w), 0, 2),
    "gather": (lambda w, i: w.gather(1, i[:, None]), 0, 2),
    "index_select": (lambda w, i: w.index_select(0, i.int()), 0, 2),
    "index": (lambda w, i: w[:, i], -3, 2),
    "indices": (lambda w, i: w[i, [0, 1]], -3, 2),
    "assigned": (lambda w, i: w.index_put((i,), w.new_ones(())), -3, 2),
    "scatter": (lambda w, i: w.scatter(1, i[None], 0.5), 0, 2),
    "scatter_add": (lambda w, i: w.scatter_add(0, i[None], w[:1, :2] * 1.0), 0, 2),
    "index_add": (lambda w, i: w.index_add(0, i, w[:2]), 0, 2),
    "one_hot": (lambda w, i: F.one_hot(i, 3).float() @ w, 0, 2),
    "shifted": (lambda w, i: w[torch.where(i > 5, i - 6, i).unsqueeze(1)], -3, 2),
    "counted": (lambda w, i: F.embedding((i != 7).cumsum(0), w), 0, 2),
}


NOT_ALONE = {"shifted", "counted", "bag", "indices", "one_hot"}


@pytest.mark.parametrize("name", LOOKUPS)
def test_every_lookup(name):
    lookup, low, high = LOOKUPS[name]
    batch = {"i": torch.tensor([0, 1])}
    (bound,) = ranges_of(looked_up(lookup), batch).each
    assert (bound.columns, bound.low, bound.high) == (("i",), low, high)
    assert f"{__file__}:" in bound.line


def test_torch_raises_in_the_same_ranges():
    weight = torch.zeros(3, 3)
    for name in LOOKUPS.keys() - {"shifted", "counted"}:
        lookup, low, high = LOOKUPS[name]
        for value in (low, high):
            lookup(weight, torch.tensor([0, value]))
        for value in (low - 1, high + 1):
            with pytest.raises((IndexError, RuntimeError)):
                lookup(weight, torch.tensor([0, value]))


def test_an_index_of_several_columns_is_named_by_them():
    def forward(component, batch):
        return {}, component.model(batch["x"] + batch["y"]).sum()

    batch = {"x": torch.tensor([1, 2]), "y": torch.tensor([0, 1])}
    ranges = ranges_of(forward, batch, model=nn.Embedding(4, 2))
    check_ranges(ranges, columns(batch))
    with pytest.raises(ValueError, match="computed from 'x' and 'y' is 5; expected 0 to 3"):
        check_ranges(ranges, {**batch, "y": torch.tensor([0, 3])})


def test_indices_that_are_not_the_batches_alone_are_left_to_the_graph():
    def forward(component, batch):
        best = component.model(batch["x"]).argmax(-1)
        shifted = batch["i"] + component.offset
        return {}, component.model.weight[best].sum() + component.model.weight[shifted].sum()

    batch = {"x": torch.randn(2, 3), "i": torch.tensor([0, 1])}
    ranges = ranges_of(forward, batch, offset=torch.tensor(1))
    assert ranges.each == ()
    check_ranges(ranges, columns(batch))


def test_an_empty_column_is_in_range():
    batch = {"i": torch.tensor([], dtype=torch.int64)}
    ranges = ranges_of(looked_up(LOOKUPS["embedding"][0]), batch)
    check_ranges(ranges, batch)


@pytest.mark.parametrize("name", sorted(LOOKUPS.keys() - NOT_ALONE))
def test_in_the_graph_they_become_nan(name):
    lookup, low, high = LOOKUPS[name]
    graph = functional_graph(lambda w, i: [lookup(w, i) * 1.0], [torch.ones(3, 3), torch.arange(2)])
    for value, fine in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        (result,) = on_jax(graph, [torch.ones(3, 3), torch.tensor([0, value])])
        assert np.isfinite(result).all() == fine


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
def test_reductions_at_them_become_nan(reduce, own):
    def function(x, i):
        return [x.scatter_reduce(0, i, x, reduce, include_self=own)]

    graph = functional_graph(function, [torch.ones(3), torch.arange(3)])
    (fine,) = on_jax(graph, [torch.ones(3), torch.tensor([0, 0, 2])])
    (broken,) = on_jax(graph, [torch.ones(3), torch.tensor([0, 0, 3])])
    assert np.isfinite(fine).all()
    assert np.isnan(broken).any()


def test_labels_become_nan():
    def function(x, y):
        return [F.cross_entropy(x, y)]

    graph = functional_graph(function, [torch.randn(2, 3), torch.tensor([0, 1])])
    assert np.isfinite(on_jax(graph, [torch.randn(2, 3), torch.tensor([2, -100])])[0])
    for wrong in (3, -1):
        assert np.isnan(on_jax(graph, [torch.randn(2, 3), torch.tensor([0, wrong])])[0])


def test_a_written_integer_becomes_the_least():
    def function(x, i):
        return [x.scatter(0, i, 1)]

    inputs = [torch.zeros(3, dtype=torch.int64), torch.tensor([1])]
    graph = functional_graph(function, inputs)
    assert on_jax(graph, [inputs[0], torch.tensor([3])])[0].min() == np.iinfo(np.int32).min
