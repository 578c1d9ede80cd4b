"""The tracer and the lowerings together: a component's step in JAX equals torch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from graph_cases import Component, eager, traced
from torch import nn
from torch.nn import functional as F

from medjax_torch.component_state import find
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.graph import columns
from medjax_torch.lowerings.interpreter import missing_operators, run

RULES = vars(tracing_rules())


def on_jax(tensor):
    values = tensor.detach().numpy()
    return jnp.array(values.astype(np.int32) if values.dtype == np.int64 else values)


def check_on_jax(component, batch, train=True, rules=RULES):
    """Assert that loss, gradients, tensor outputs and state are torch's; return the graph."""
    loss, gradients, outputs, state = eager(component, batch, train)
    graph = traced(component, batch, train, **rules)
    assert not missing_operators(graph.module)
    constants = {name: on_jax(value) for name, value in graph.constants.items()}
    inputs = graph.inputs(find(component).tensors, columns(batch))
    step = jax.jit(lambda key, *arguments: run(graph.module, arguments, key, constants))
    results = graph.results(step(jax.random.key(0), *map(on_jax, inputs)))

    def close(array, expected):
        np.testing.assert_allclose(array, expected.detach().numpy(), rtol=1e-5, atol=2e-6)

    close(results.loss, loss.reshape(()))
    assert set(results.gradients) == set(gradients)
    for name, gradient in gradients.items():
        close(results.gradients[name], gradient)
    for name, array in zip(outputs, results.outputs, strict=True):
        close(array, outputs[name])
    for name, array in results.updated.items():
        close(array, state[name])
    return graph


def classify(component, batch):
    logits = component.model(batch["x"])
    return {"logits": logits}, F.cross_entropy(logits, batch["y"])


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)],
        [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)],
    ],
    ids=["layer norm", "batch norm"],
)
def test_small_networks(layers, train):
    torch.manual_seed(0)
    batch = {"x": torch.randn(5, 6), "y": torch.tensor([0, 2, 1, 1, 0])}
    graph = check_on_jax(Component(classify, model=nn.Sequential(*layers)), batch, train)
    assert graph.train is train


def test_a_speech_loss():
    torch.manual_seed(0)

    def forward(component, batch):
        scores = component.model(batch["x"]).log_softmax(-1)
        lengths = torch.tensor([7, 5])
        return {}, F.ctc_loss(scores, batch["y"], lengths, torch.tensor([3, 2]))

    batch = {"x": torch.randn(7, 2, 4), "y": torch.tensor([[1, 2, 2], [3, 1, 1]])}
    check_on_jax(Component(forward, model=nn.Linear(4, 5)), batch)


@pytest.mark.parametrize("train", [True, False])
def test_a_token_classifier_of_transformers(train):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    model = transformers.BertForTokenClassification(config)

    def forward(component, batch):
        output = component.model(**batch)
        return {"logits": output.logits}, output.loss

    batch = {
        "input_ids": torch.randint(1, 40, (2, 6)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[0, 1, 2, 2, 0, -100], [1, 0, 0, 2, -100, -100]]),
    }
    check_on_jax(Component(forward, model=model), batch, train)


def test_dropout_depends_on_the_key_alone():
    def forward(component, batch):
        return {}, component.model(batch["x"]).sum()

    batch = {"x": torch.ones(4, 50)}
    component = Component(forward, model=nn.Sequential(nn.Linear(50, 8), nn.Dropout(0.5)))
    graph = traced(component, batch, True, **RULES)
    inputs = [on_jax(t) for t in graph.inputs(find(component).tensors, columns(batch))]
    losses = [
        float(graph.results(run(graph.module, inputs, jax.random.key(seed), {})).loss)
        for seed in (0, 1, 0)
    ]
    assert losses[0] == losses[2] != losses[1]
