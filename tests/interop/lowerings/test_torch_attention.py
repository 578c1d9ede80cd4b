"""torch's attention as one operation: which calls are converted, and what cuDNN receives."""

import re
from functools import partial

import attention_calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from graph_cases import Component, traced
from test_graph_on_jax import check_on_jax, on_jax
from torch import nn
from torch.nn import functional as F
from trained import DATA, Classifier, make

from medjax.models import attention as by_cudnn
from medjax_torch import Options
from medjax_torch.conversion import component as conversion
from medjax_torch.conversion.tracing_rules import tracing_rules
from medjax_torch.lowerings import attention as lowered
from medjax_torch.lowerings.precision import multiplying_in

RULES = vars(tracing_rules("cudnn"))
WHOLE = "medjax.attention.default"
dot_product_attention = jax.nn.dot_product_attention


def attending(**options):
    """Return a component whose queries, keys and values are trained."""

    def forward(self, batch):
        projected = self.model(batch["x"]).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in projected)
        masks = {name: batch[name] for name in batch.keys() - {"x"}}
        attended = F.scaled_dot_product_attention(query, key, value, **masks, **options)
        return {"attended": attended}, attended.square().sum()

    torch.manual_seed(0)
    return Component(forward, model=nn.Linear(6, 48))


X = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
PADDING = (torch.arange(4) < torch.tensor([[4], [3]]))[:, None, None]


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({}, None),
        ({"is_causal": True, "scale": 0.2}, None),
        ({}, PADDING),
        ({}, torch.ones(4, 4, dtype=torch.bool).tril()),
    ],
    ids=["plain", "causal", "padding", "mask of two axes"],
)
def test_attention_is_one_operation_with_gradients(options, mask):
    batch = {"x": X} if mask is None else {"x": X, "attn_mask": mask}
    graph = check_on_jax(attending(**options), batch, rules=RULES)
    assert {WHOLE, "medjax.attention_backward.default"} <= set(graph.operations)
    assert WHOLE in check_on_jax(attending(**options), batch, train=False, rules=RULES).operations
    assert WHOLE not in traced(attending(**options), batch, **vars(tracing_rules())).operations


def test_a_mask_of_numbers_is_left_to_torch():
    batch = {"x": X, "attn_mask": torch.where(PADDING, 0.0, -torch.inf)}
    assert WHOLE not in check_on_jax(attending(), batch, rules=RULES).operations


def test_dropped_weights_are_left_to_torch():
    assert WHOLE not in traced(attending(dropout_p=0.5), {"x": X}, **RULES).operations


@pytest.mark.parametrize("shapes", [[(2, 4, 8)] * 3, [(2, 2, 4, 8), (2, 2, 4, 8), (2, 2, 4, 6)]])
def test_other_shapes_are_left_to_torch(shapes):
    def forward(self, batch):
        attended = F.scaled_dot_product_attention(batch["q"], batch["k"], batch["v"])
        return {"attended": attended}, self.model(attended).sum()

    batch = {name: torch.randn(shape) for name, shape in zip("qkv", shapes, strict=True)}
    component = Component(forward, model=nn.Linear(shapes[2][-1], 1))
    assert WHOLE not in check_on_jax(component, batch, rules=RULES).operations


def test_grouped_queries_are_left_to_torch():
    def forward(self, batch):
        heads = batch["kv"], batch["kv"]
        attended = F.scaled_dot_product_attention(batch["q"], *heads, enable_gqa=True)
        return {"attended": attended}, self.model(attended).sum()

    batch = {"q": torch.randn(2, 4, 5, 8), "kv": torch.randn(2, 2, 5, 8)}
    component = Component(forward, model=nn.Linear(8, 1))
    assert WHOLE not in check_on_jax(component, batch, rules=RULES).operations


@pytest.mark.parametrize("train", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_encoder_of_transformers_attends_in_one_operation(train):
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)

    def forward(self, batch):
        output = self.model(**batch)
        return {"logits": output.logits}, output.loss

    batch = {
        "input_ids": torch.randint(1, 40, (2, 6)),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]]),
        "labels": torch.tensor([[0, 1, 1, 1, 0, -100], [1, 0, 0, 1, -100, -100]]),
    }
    component = Component(forward, model=transformers.BertForTokenClassification(config))
    graph = check_on_jax(component, batch, train, rules=RULES)
    calls = [node for node in graph.module.graph.nodes if str(node.target) == WHOLE]
    assert len(calls) == config.num_hidden_layers


@pytest.fixture
def by_lengths(monkeypatch):
    """Pretend that cuDNN applies, let XLA compute instead, and record the number of keys.

    Of each row, or of all alike, each time that a step comes to it.
    """
    lengths = []

    def computed(query, key, value, *, implementation, key_value_seq_lengths=None, **options):
        if implementation == "cudnn":
            assert query.dtype == key.dtype == value.dtype == jnp.bfloat16
            told = key.shape[1] if key_value_seq_lengths is None else key_value_seq_lengths
            jax.debug.callback(lambda told: lengths.append(np.asarray(told).tolist()), told)
            options["key_value_seq_lengths"] = key_value_seq_lengths
        return dot_product_attention(query, key, value, implementation="xla", **options)

    for module in (by_cudnn, conversion):
        monkeypatch.setattr(module, "has_cudnn_attention", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", computed)
    return lengths


def step(mask, query, key, value, gradient):
    """Return the attended values and the derivatives, multiplied in bfloat16."""
    with multiplying_in(jnp.bfloat16):
        options = (mask, False, 0.3)
        attended = lowered.attention(query, key, value, *options)
        return attended, lowered._backward(gradient, query, key, value, *options)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none", 5),
        ("padding at the end", [5, 3]),
        ("padding of a whole row", [5, 1]),
        ("padding at the beginning", None),
        ("by query and key", None),
        ("by head", None),
    ],
)
def test_cudnn_gets_the_number_of_real_keys(by_lengths, name, told):
    mask = attention_calls.MASKS[name]
    draw = np.random.default_rng(0)
    query, key, value, gradient = (
        jnp.asarray(draw.normal(size=shape), jnp.float32)
        for shape in (*attention_calls.SHAPES, attention_calls.SHAPES[0])
    )
    mask = None if mask is None else on_jax(mask)
    # A new function, as one compiled for another test would append to that test's list.
    attended, derivatives = jax.jit(partial(step, mask))(query, key, value, gradient)
    jax.effects_barrier()
    assert by_lengths == ([] if told is None else [told] * 2)  # forward and backward

    tensors = [
        torch.tensor(np.asarray(array)).requires_grad_() for array in (query, key, value, gradient)
    ]
    expected = F.scaled_dot_product_attention(*tensors[:3], attention_calls.MASKS[name], scale=0.3)
    expected.backward(tensors[3].detach())
    for actual, wanted in zip(
        [attended, *derivatives], [expected, *(t.grad for t in tensors[:3])], strict=True
    ):
        np.testing.assert_allclose(np.float32(actual), wanted.detach(), rtol=0, atol=0.05)


def test_cudnns_kernels_are_used_on_a_gpu(monkeypatch):
    monkeypatch.setattr(by_cudnn, "has_cudnn_attention", lambda: True)
    # Here JAX inspects the machine, which need not have a GPU.
    cudnn = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)
    arrays = [jnp.ones((2, 3, 4, 8))] * 4
    traced_step = jax.jit(step).trace(on_jax(PADDING), *arrays)
    program = traced_step.lower(lowering_platforms=("cuda",)).as_text()
    kernels = re.findall(r"custom_call @__cudnn\$(\w+)", program)
    # The backward pass starts from the residuals of the forward pass, computed again.
    assert kernels == ["fmhaSoftmax", "fmhaSoftmax", "fmhaSoftmaxBackward"]


class Attending(Classifier):
    """A component in which the numbers of a point attend to each other."""

    def forward(self, batch, return_loss, eval_mode):
        x = batch["x"][:, None, :, None].expand(-1, 1, -1, 8)
        attended = F.scaled_dot_product_attention(x, x, x)
        return super().forward({**batch, "x": attended[:, 0, :, 0]}, return_loss, eval_mode)


def trained_with(folder, **options):
    """Return the losses of a run, and whether its graphs attend in one operation."""
    trainer = make(folder, Attending(), options=Options(**options), train=DATA)
    losses = [epoch["train"]["loss"] for epoch in trainer.train()]
    graphs = trainer.prepare().converted.variants.graphs
    return losses, [WHOLE in graph.operations for graph in graphs]


def test_a_trainer_uses_the_option(by_lengths, tmp_path):
    expected, _ = trained_with(tmp_path / "xla", precision="bfloat16")
    assert not by_lengths
    options = {"precision": "bfloat16", "attention_implementation": "cudnn"}
    losses, is_one = trained_with(tmp_path / "cudnn", **options)
    assert all(is_one)
    assert by_lengths
    np.testing.assert_allclose(losses, expected, rtol=0.02)


@pytest.mark.parametrize("precision", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_the_option_has_no_effect_where_cudnn_does_not_apply(monkeypatch, tmp_path, precision):
    # cuDNN supports only bfloat16 here, and no CPU.
    monkeypatch.setattr(conversion, "has_cudnn_attention", lambda: precision == "float32")
    runs = [
        trained_with(tmp_path / name, precision=precision, attention_implementation=name)
        for name in ("xla", "cudnn")
    ]
    assert runs[0] == runs[1]
    assert not any(runs[0][1])


def test_an_unknown_implementation_is_refused():
    with pytest.raises(ValueError, match="is 'flash'; expected one of 'xla', 'cudnn'"):
        Options(attention_implementation="flash")
