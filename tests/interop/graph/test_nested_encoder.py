"""`nn.TransformerEncoder` in evaluation, where torch leaves out padded positions."""

import numpy as np
import pytest
import torch
from graph_cases import Component, check, compare, eager, traced
from test_graph_on_jax import RULES
from torch import nn

from medjax_torch.component_state import find
from medjax_torch.verification import verify
from medjax_torch.verification.reference import reference

pytestmark = pytest.mark.filterwarnings("ignore:The PyTorch API of nested", "ignore:enable_nested")

X = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))


def padding(*lengths):
    return torch.arange(5) >= torch.tensor(lengths)[:, None]


LEFT, LATER = padding(4, 2, 5), padding(1, 3, 3)
GAPS = LEFT.clone()
GAPS[1] = torch.tensor([1, 0, 0, 1, 1])


def encoder(norm=False, rate=0.0, *, mask_check=True, enable=True, **options):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=rate, batch_first=True, **options)
    after = nn.LayerNorm(4) if norm else None
    inner = nn.TransformerEncoder(layer, 2, after, enable, mask_check)
    for parameter in inner.parameters():
        nn.init.normal_(parameter, std=0.5)
    return inner


def pooled(inner, frozen=False):
    def forward(c, batch):
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            if frozen:
                c.inner.eval()
            hidden = c.inner(batch["x"], src_key_padding_mask=batch["mask"])
        return {"hidden": hidden}, c.head(hidden.mean(1)).square().sum()

    return Component(forward, inner=inner, head=nn.Linear(4, 3))


def batch_of(mask):
    return {"x": X, "mask": mask}


KINDS = {
    "plain": {},
    "a norm at the end": {"norm": True},
    "gelu": {"activation": "gelu"},
    "unchecked": {"mask_check": False},
    "no nested tensors": {"enable": False},
    "norm first": {"norm_first": True},
}


ALL = ("a norm at the end", "no nested tensors", "norm first")
"""Kinds whose result is not 0 at padded positions."""


@pytest.mark.parametrize("name", KINDS)
def test_one_graph_gives_torchs_result_for_every_mask(name):
    parts = pooled(encoder(**KINDS[name]))
    graph = traced(parts, batch_of(LEFT), False, **RULES)
    assert graph.guards == ()
    for mask in (LEFT, LATER, GAPS):
        agree(graph, parts, batch_of(mask))
    assert bool(agree(graph, parts, batch_of(LEFT))[LEFT].any()) == (name in ALL)
    batch = batch_of(LEFT.float().masked_fill(LEFT, -torch.inf))
    agree(traced(parts, batch, False, **RULES), parts, batch)


def agree(graph, parts, batch):
    loss, gradients, outputs, _ = eager(parts, batch, False)
    compare(graph, parts, batch, loss, gradients, outputs)
    return outputs["hidden"]


def test_torch_leaves_out_what_a_float_mask_only_weakens():
    parts, batch = pooled(encoder()), batch_of(LEFT * -1.5)
    agree(traced(parts, batch, False, **RULES), parts, batch)


def test_in_training_all_positions_are_computed():
    graph = check(pooled(encoder()), batch_of(LEFT), True, **RULES)
    assert graph.train


def test_a_frozen_encoder_leaves_them_out_in_training_too():
    parts = pooled(encoder(), frozen=True)
    check(parts, batch_of(LEFT), True, **RULES)
    assert not eager(parts, batch_of(LEFT), True)[2]["hidden"][LEFT].any()


def test_who_switches_the_fast_path_off_gets_all_positions():
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        parts = pooled(encoder())
        check(parts, batch_of(LEFT), False, **RULES)
        assert eager(parts, batch_of(LEFT), False)[2]["hidden"][LEFT].all()
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


def test_the_comparison_is_made_with_the_fast_path():
    parts, batch = pooled(encoder()), batch_of(LEFT)

    def call(values):
        return parts.forward(values, return_loss=True, eval_mode=True)

    expected = reference(call, find(parts), batch, train=False)
    np.testing.assert_array_equal(expected.outputs["hidden"][LEFT], 0)
    graph = traced(parts, batch, False, **RULES)
    constants = {name: value.numpy() for name, value in graph.constants.items()}
    assert verify(call, find(parts), batch, graph, constants).relative < 1e-5
