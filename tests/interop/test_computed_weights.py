"""Weights and other tensors that properties compute each time they are read."""

import pytest
import torch
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from trained import BatchData, Classifier, make

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
