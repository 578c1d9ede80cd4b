"""Checkpointed functions are recomputed: the same numbers as in torch, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers
from graph_cases import Component, check, close, eager, run, traced
from torch import nn
from torch.utils.checkpoint import checkpoint
from trained import Classifier

from medjax import Options as CoreOptions
from medjax import sharding
from medjax.schedules import as_schedule
from medjax.state import create_state, make_optimizer
from medjax.step import make_train_step
from medjax_torch.conversion import ConvertedComponent
from medjax_torch.conversion.component import COLUMNS, GRAPH
from medjax_torch.graph.recompute import barrier
from medjax_torch.verification import verify

BATCH = {"x": torch.randn(4, 3, generator=torch.Generator().manual_seed(0))}


def barriers(graph):
    return len(graph.module.graph.find_nodes(op="call_function", target=barrier))


def layer(*parts):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), *parts, nn.Linear(3, 3), nn.Sigmoid())


def one(self, x):
    return checkpoint(self.model, x, use_reentrant=self.reentrant).sum()


def then_more(self, x):
    hidden = checkpoint(self.model, x * 2, use_reentrant=self.reentrant)
    return (hidden * hidden.exp()).sum() + hidden.mean()


def twice(self, x):
    for _ in range(2):
        x = checkpoint(self.model, torch.sin(x), use_reentrant=self.reentrant)
    return x.pow(2).sum()


def nested(self, x):
    def inner(value):
        return checkpoint(self.model, value.cos(), use_reentrant=self.reentrant) * value

    return checkpoint(inner, torch.sin(x), use_reentrant=self.reentrant).sum()


def looked_up(self, x):
    """Indices that come from numbers of the function itself."""

    def choose(value):
        value = self.model(value)
        return value.gather(1, value.argmax(1, keepdim=True)) * value

    return checkpoint(choose, torch.sin(x), use_reentrant=self.reentrant).sum()


def loss_inside(self, x):
    """The loss itself is computed in the function."""
    return checkpoint(lambda value: self.model(value).sum(), x, use_reentrant=self.reentrant)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize(
    ("function", "count"),
    [(one, 1), (then_more, 1), (twice, 2), (nested, 1), (looked_up, 1), (loss_inside, 1)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_numbers_are_torchs(function, count, reentrant):
    def forward(self, batch):
        loss = function(self, batch["x"].detach().requires_grad_())
        return {}, loss

    component = Component(forward, model=layer(), reentrant=reentrant)
    assert barriers(check(component, BATCH)) == count
    assert barriers(check(component, BATCH, train=False)) == 0


def test_running_statistics_are_updated_once():
    def forward(self, batch):
        return {}, checkpoint(self.model, batch["x"], use_reentrant=False).pow(2).sum()

    def plain(self, batch):
        return {}, self.model(batch["x"]).pow(2).sum()

    component = Component(forward, model=layer(nn.BatchNorm1d(3)))
    graph = traced(component, BATCH)
    assert barriers(graph) == 1
    # torch's own checkpoint counts the batch once more when it runs again.
    expected = eager(Component(plain, model=component.model), BATCH)[3]
    for name, value in run(graph, component, BATCH).updated.items():
        close(value, expected[name])


def hugging_face(**settings):
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=40,
        num_labels=3,
    )
    model = transformers.BertForTokenClassification(config)
    if settings:
        model.gradient_checkpointing_enable(settings)
    return model


class Tokens(Classifier):
    def __init__(self, model):
        self.model = model

    def forward(self, batch, eval_mode):
        self.model.train(not eval_mode)
        output = self.model(**batch)
        return {}, output.loss


IDS = torch.arange(256).reshape(8, 32) % 60


def step_of(model):
    """Return what the compiled training step gives, and the bytes of its temporaries."""
    component = Tokens(model)
    converted = ConvertedComponent(component, component.forward, max_variants=1)
    batch = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "labels": IDS % 3}
    key = converted.graph_of(batch, train=True)
    call = converted.call_on(batch, train=True)
    verify(call, converted.inventory, batch, converted.graph(key), converted.constants(key))
    trainable = converted.as_trainable(optax.sgd)
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(trainable, CoreOptions())
    state = create_state(trainable, optimizer, seed=0, learning_rate=0.1, accumulates=False)
    state = sharding.put(state, sharding.state_shardings(state, mesh))
    options = CoreOptions()
    step = make_train_step(
        state,
        schedule=as_schedule(None),
        options=options,
        accumulation=1,
        mesh=mesh,
        differentiate=converted.differentiate(options),
    )
    columns = {name: jnp.asarray(value.numpy(), jnp.int32) for name, value in batch.items()}
    arguments = state, {GRAPH: key, COLUMNS: columns}
    compiled = step.lower(*arguments).compile()
    return compiled(*arguments)[0].params, compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable. is deprecated:FutureWarning")
@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_model_trains_alike_in_less_memory(reentrant):
    kept, size = step_of(hugging_face())
    again, smaller = step_of(hugging_face(use_reentrant=reentrant))  # with dropout
    assert smaller < 0.6 * size
    for name, value in kept.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-6, err_msg=name)
