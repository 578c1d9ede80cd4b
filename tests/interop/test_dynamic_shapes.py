"""What masks select is one graph for every count, and equals torch for all of them."""

import re

import jax
import numpy as np
import pytest
import torch
from graph_cases import Component
from selection_cases import EXACT, SELECTED, batch, content
from torch_graphs import QUICKLY

from medjax_torch.graph import TraceError, bounds, check_ranges, columns
from medjax_torch.lowerings import run
from medjax_torch.modules import find
from medjax_torch.reference import reference
from medjax_torch.tensors import to_numpy
from medjax_torch.variants import Variants, tracing_rules

KINDS = ("some", "some", "all", "one", "none", "some")

DECIDES = {
    "squeezed": 2,
    "batch_norm": 2,
    "only_if_any": 2,
    "only_if_some": 2,
    "at_least_one": 2,
    "log_sum": 2,
    "running_sum": 2,
    "dropped": 2,
    "product": 2,
}
"""How many graphs there are, if not one: torch or forward treats counts of 0 or 1 differently."""


class Compared:
    """A component whose graphs are compared with torch on one batch after the other."""

    def __init__(self, middle, *, max_variants=8, train=True):
        def forward(self, given):
            hidden = self.model(given["x"])
            loss = middle(self, hidden, given)
            outputs, loss = loss if isinstance(loss, tuple) else ({"hidden": hidden}, loss)
            return outputs, loss

        self.component = Component(forward, **content())
        self.found = find(self.component)
        self.variants = Variants(self.found, max_variants, tracing_rules())
        self._train, self._compiled = train, {}

    def call(self, given):
        return self.component.forward(given, True, not self._train)

    def graph_of(self, given):
        return self.variants.graphs[self.variants.number(self.call, given, train=self._train)]

    def check(self, given):
        expected = reference(self.call, self.found, given, train=self._train)
        graph = self.graph_of(given)
        check_ranges(bounds(graph), columns(given))
        if id(graph) not in self._compiled:
            self._compiled[id(graph)] = jax.jit(
                lambda values, held: run(graph.module, values, None, held), compiler_options=QUICKLY
            )
        inputs = [to_numpy(v).copy() for v in graph.inputs(self.found.tensors, columns(given))]
        held = {name: to_numpy(value).copy() for name, value in graph.constants.items()}
        values = self._compiled[id(graph)](inputs, held)
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


def same(name, found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("name", SELECTED)
def test_every_count_equals_torch(name):
    compared = Compared(SELECTED[name])
    for seed, kind in enumerate(KINDS):
        given = batch(kind, seed)
        try:
            reference(compared.call, compared.found, given, train=True)
        except (IndexError, ValueError):
            assert kind in ("one", "none")  # which torch itself refuses
            continue
        compared.check(given)
    graphs = compared.variants.graphs
    assert len(graphs) == DECIDES.get(name, 1), {graph.exact for graph in graphs}


@pytest.mark.filterwarnings("ignore::medjax_torch.lowerings.MissingOperatorWarning")
@pytest.mark.parametrize("name", EXACT)
def test_what_needs_exact_shapes_gets_them(name):
    middle, reason = EXACT[name]
    compared = Compared(middle, max_variants=10)
    for seed, kind in enumerate(KINDS):
        graph = compared.check(batch(kind, seed))
        assert kind == "all" or re.search(reason, graph.exact), graph.exact
    assert len(compared.variants.graphs) > 2
