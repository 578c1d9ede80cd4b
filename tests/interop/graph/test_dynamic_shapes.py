"""Selections by masks: one graph for all counts, equal to torch for each of them."""

import re

import jax
import numpy as np
import pytest
import torch
from exact_cases import EXACT, SLOW
from graph_cases import Component
from selection_cases import SELECTED, batch, content
from torch.nn import functional as F
from torch_graphs import QUICKLY

from medjax_torch.component_state import find, to_numpy
from medjax_torch.conversion.graph_cache import GraphCache
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.graph import TraceError, bounds, check_ranges, columns
from medjax_torch.lowerings import run
from medjax_torch.verification.reference import reference

KINDS = ("some", "some", "all", "one", "none", "some")

DECIDES = {
    "squeezed": 2,
    "batch_norm": 2,
    "only_if_any": 2,
    "only_if_some": 2,
    "at_least_one": 2,
    "log_sum": 2,
    "running_sum": 3,
    "dropped": 2,
    "supervised_contrastive": 2,
}
"""How many graphs there are, if not one: torch or forward treats counts of 0 or 1 differently."""


class Compared:
    """A component whose graphs are compared with torch, batch by batch."""

    def __init__(self, middle, *, max_variants=8, train=True):
        def forward(self, batch):
            hidden = self.model(batch["x"])
            loss = middle(self, hidden, batch)
            outputs, loss = loss if isinstance(loss, tuple) else ({"hidden": hidden}, loss)
            return outputs, loss

        self.component = Component(forward, **content())
        self.inventory = find(self.component)
        self.variants = GraphCache(self.inventory, max_variants, tracing_rules())
        self._train, self._compiled = train, {}

    def call(self, batch):
        return self.component.forward(batch, True, not self._train)

    def graph_of(self, batch):
        number = self.variants.known(batch, train=self._train)
        if number is None:
            number = self.variants.add(self.call, batch, train=self._train)
        return self.variants.graphs[number]

    def check(self, batch):
        expected = reference(self.call, self.inventory, batch, train=self._train)
        graph = self.graph_of(batch)
        check_ranges(bounds(graph), columns(batch))
        if id(graph) not in self._compiled:
            self._compiled[id(graph)] = jax.jit(
                lambda values, constants: run(graph.module, values, None, constants),
                compiler_options=QUICKLY,
            )
        inputs = [to_numpy(v).copy() for v in graph.inputs(self.inventory.tensors, columns(batch))]
        constants = {name: to_numpy(value).copy() for name, value in graph.constants.items()}
        values = self._compiled[id(graph)](inputs, constants)
        results = graph.results([np.asarray(value) for value in values])
        same("loss", results.loss, expected.loss)
        assert set(results.gradients) == set(expected.gradients)
        for name, gradient in results.gradients.items():
            same(name, gradient, expected.gradients[name])
        outputs = dict(zip(graph.outputs.names, results.outputs, strict=True))
        for name, output in graph.cut(outputs, results.sizes).items():
            same(name, output, expected.outputs[name])
        for name, value in results.updated.items():
            same(name, value, expected.state[name])
        return graph


def same(name, actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("name", SELECTED)
def test_every_count_equals_torch(name):
    compared = Compared(SELECTED[name])
    for seed, kind in enumerate(KINDS):
        values = batch(kind, seed)
        try:
            reference(compared.call, compared.inventory, values, train=True)
        except (IndexError, ValueError):
            assert kind in ("one", "none")  # torch itself refuses these
            continue
        compared.check(values)
    graphs = compared.variants.graphs
    assert len(graphs) == DECIDES.get(name, 1), {graph.exact for graph in graphs}


@pytest.mark.filterwarnings("ignore::medjax_torch.lowerings.MissingOperatorWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in EXACT]
)
def test_operations_that_need_exact_shapes_get_them(name):
    middle, reason = EXACT[name]
    compared = Compared(middle, max_variants=10)
    for seed, kind in enumerate(KINDS):
        graph = compared.check(batch(kind, seed))
        assert kind == "all" or re.search(reason, graph.exact), graph.exact
    assert len(compared.variants.graphs) > 2


def test_the_limit_names_line_cost_and_remedy():
    compared = Compared(EXACT["length"][0], max_variants=3)
    for seed in range(3):
        compared.graph_of(batch("some", seed))
    with pytest.raises(TraceError) as caught:
        compared.graph_of(batch("all"))
    message = str(caught.value)
    assert re.search(
        r"at .*exact_cases.py:\d+ in length: kept = h.* in more than 3 ways: 4 graphs were "
        r"traced in \d+\.\d s, and each was also compiled.* a count is treated as a fixed number "
        r"at .*in length: return kept.*x\.size\(0\) instead of len\(x\), or raise "
        r"Options\(max_variants",
        message,
    )


def outputs_of_masks(self, h, batch):
    kept = batch["mask"].bool()
    logits = self.linear(h[kept])
    outputs = {"logits": logits, "columns": logits.T, "count": logits.size(0), "all": h}
    return outputs, logits.pow(2).mean()


@pytest.mark.parametrize("train", [True, False])
def test_outputs_have_torchs_size(train):
    compared = Compared(outputs_of_masks, train=train)
    for seed, kind in enumerate(KINDS):
        graph = compared.check(batch(kind, seed))
    assert graph.varying == (("logits", 0), ("columns", 1))
    assert len(compared.variants.graphs) == 1


def overwritten(self, h, batch):
    kept = batch["mask"].bool()
    first = h.detach()[kept].sum(0)
    kept[:] = True
    return (first * h[kept].mean(0)).sum() + h[batch["mask"].bool()].pow(2).sum()


def test_a_mask_that_is_overwritten_later_selects_by_its_old_values():
    compared = Compared(overwritten)
    for seed, kind in enumerate(KINDS):
        compared.check(batch(kind, seed))


def constant(self, h, batch):
    upper = torch.triu(torch.ones(6, 6), 1).bool()
    return (h @ h.mT)[:, upper].pow(2).mean()


def test_a_constant_mask_has_its_exact_size():
    graph = Compared(constant).check(batch("some"))
    assert not graph.guards
    shapes = [node.meta["val"].shape for node in graph.module.graph.nodes if "val" in node.meta]
    assert (4, 15) in [tuple(shape) for shape in shapes]


def draws(self, h, batch):
    return F.dropout(h[batch["mask"].bool()].T, 0.5).pow(2).mean()


def test_draws_that_padding_would_shift_use_exact_shapes():
    graph = Compared(draws).check(batch("some"))
    assert "draws random numbers along a size that varies" in graph.exact


def in_steps(self, h, batch):
    labels = batch["labels"][batch["mask"].bool()]
    if labels.size(0) == 0:
        return h.sum() * 0
    lower = labels[labels < labels.max()]
    return h.pow(2).mean() * (2.0 if lower.size(0) > 1 else 3.0)


def test_later_decisions_may_not_exist_in_other_batches():
    compared = Compared(in_steps)
    for seed, kind in enumerate(KINDS):
        compared.check(batch(kind, seed))
    assert len(compared.variants.graphs) <= 3
