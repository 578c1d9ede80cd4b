"""Weights and other tensors that properties compute each time they are read."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from trained import BatchData, Classifier, make

from medjax_torch.component_state import find
from medjax_torch.component_state.watch.reads import AttributeReads
from medjax_torch.conversion import graph_cache


class Parametrized(Classifier):
    def __init__(self, parametrization):
        super().__init__()
        self.model[3] = parametrization(self.model[3])


class Scaled(Classifier):
    def __init__(self):
        super().__init__()
        self.model.log_scale = torch.nn.Parameter(torch.zeros(()))

    @property
    def scale(self):
        return self.model.log_scale.exp()

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"]) * self.scale
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


COMPONENTS = {
    "weight normalisation": lambda: Parametrized(parametrizations.weight_norm),
    "a property": Scaled,
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_computed_weights_are_not_traced_again_at_every_step(name, tmp_path, monkeypatch):
    traced = []

    def counting(*args, **kwargs):
        traced.append(kwargs["train"])
        return graph_of(*args, **kwargs)

    graph_of = graph_cache.trace
    monkeypatch.setattr(graph_cache, "trace", counting)
    history = make(tmp_path, COMPONENTS[name]()).train()
    assert sorted(traced) == [False] * 2 + [True] * 2  # whole batches and the last one
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]


def test_a_parametrized_weight_is_not_computed_to_see_whether_it_has_changed():
    # Spectral normalisation moves its buffers each time that the weight is read.
    component = Parametrized(parametrizations.spectral_norm)
    reads = AttributeReads(find(component).content)
    with reads.recording():
        component.model(torch.ones(1, 6))
    paths = {place.path for place in reads.places}
    assert "model.3.weight" not in paths
    assert any(path.startswith("model.3.parametrizations") for path in paths), paths
