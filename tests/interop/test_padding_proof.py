"""Padding is harmless where torch computes the same with it, and only there."""

import re

import numpy as np
import pytest
import torch
from graph_cases import Component
from torch import nn
from torch.nn import functional as F

from medjax_torch.modules import find
from medjax_torch.padding_proof import PaddingProof, prove_padding, strip

IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0]])
BATCH = {"ids": IDS, "labels": torch.where(IDS > 0, IDS % 3, -100), "kind": "words"}
PADDED = {
    "ids": F.pad(IDS, (0, 3)),
    "labels": F.pad(BATCH["labels"], (0, 3), value=-100),
    "kind": "words",
}


def proved(forward, train=True, **content):
    torch.manual_seed(0)
    content.setdefault("embed", nn.Embedding(8, 6, padding_idx=0))
    content.setdefault("head", nn.Linear(6, 3))
    component = Component(forward, **content)
    return prove_padding(
        lambda values: component.forward(values, return_loss=True, eval_mode=not train),
        find(component),
        BATCH,
        PADDED,
        4,
        7,
        train=train,
    )


def loss_of(logits, batch):
    return F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())


def tagging(component, batch):
    hidden = F.dropout(component.embed(batch["ids"]), 0.6)
    padding = batch["ids"] == 0
    attended, weights = component.attention(hidden, hidden, hidden, padding)
    logits = component.head(attended)
    outputs = {
        "logits": logits,
        "more": [weights, logits.argmax(-1)],
        "lengths": (~padding).sum(1),
        "kind": batch["kind"],
    }
    return outputs, loss_of(logits, batch)


def attention():
    return nn.MultiheadAttention(6, 2, batch_first=True)


@pytest.mark.parametrize("train", [True, False])
def test_masked_attention(train):
    proof = proved(tagging, train, attention=attention())
    assert isinstance(proof, PaddingProof)
    assert proof.axes == {"logits": (1,), "more.0": (1, 2), "more.1": (1,)}
    assert proof.relative < 1e-5


def test_what_does_not_follow_the_length_is_not_cut():
    def forward(component, batch):
        mask = (batch["ids"] > 0).unsqueeze(-1)
        pooled = (component.embed(batch["ids"]) * mask).sum(1) / mask.sum(1)
        return {"pooled": pooled}, component.head(pooled).square().mean()

    assert proved(forward).axes == {}


def averaged(component, batch):
    logits = component.head(component.embed(batch["ids"]).mean(1, keepdim=True) + 0)
    return {"logits": logits}, logits.square().mean()


def normalised(component, batch):
    hidden = component.norm(component.embed(batch["ids"]).flatten(0, 1)).view(2, -1, 6)
    logits = component.head(hidden)
    return {}, loss_of(logits, batch)


def counted(component, batch):
    component.seen += batch["ids"].numel()
    return {}, loss_of(component.head(component.embed(batch["ids"])), batch)


def regularised(component, batch):
    loss = loss_of(component.head(component.embed(batch["ids"])), batch)
    size = component.spare.weight.square().sum() * batch["ids"].shape[1]
    return {}, loss + size - size.detach()


def flattened(component, batch):
    logits = component.head(component.embed(batch["ids"]))
    return {"logits": logits.flatten(0, 1)}, loss_of(logits, batch)


def fixed(component, batch):
    return {}, component.over(component.embed(batch["ids"]).transpose(1, 2)).sum()


def reversed_in_time(component, batch):
    logits = component.head(component.embed(batch["ids"]).flip(1))
    return {"logits": logits}, component.head.weight.sum()


HARMS = {
    "a mean over padding": (averaged, {}, r"padding changes .*: relative difference"),
    "a batch norm": (normalised, {"norm": nn.BatchNorm1d(6)}, r"padding changes .*\(and \d+ more"),
    "state": (counted, {"seen": torch.tensor(0)}, "padding changes seen after the step"),
    "gradients": (regularised, {"spare": nn.Linear(2, 2)}, "changes the gradient of spare.weight"),
    "another shape": (flattened, {}, r"output logits has shape \(14, 3\) .* cannot be cut back"),
    "a fixed length": (fixed, {"over": nn.Linear(4, 1)}, "forward raises RuntimeError on the pad"),
    "padding in front": (reversed_in_time, {}, "padding changes output logits: .* in the padded"),
}


@pytest.mark.parametrize("name", HARMS)
def test_harm_is_described(name):
    forward, content, message = HARMS[name]
    reason = proved(forward, **content)
    assert isinstance(reason, str)
    assert re.search(message, reason), reason


def test_what_torch_raises_on_the_batch_itself_is_raised():
    with pytest.raises(RuntimeError, match="shape"):
        proved(fixed, over=nn.Linear(5, 1))


def test_strip_cuts_tensors_and_arrays_wherever_they_lie():
    outputs = {
        "scores": torch.arange(30).reshape(2, 5, 3),
        "more": [np.zeros((2, 5, 5)), "text"],
        "pooled": torch.zeros(2, 5),
    }
    cut = strip(outputs, {"scores": (1,), "more.0": (1, 2)}, 4)
    torch.testing.assert_close(cut["scores"], outputs["scores"][:, :4])
    assert cut["more"][0].shape == (2, 4, 4)
    assert cut["more"][1] == "text"
    assert cut["pooled"].shape == (2, 5)
