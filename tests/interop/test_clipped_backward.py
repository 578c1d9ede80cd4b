"""A backward pass that is not linear, where several batches make one update."""

import functools

import pytest
import torch
from plain_loop import check
from torch.nn import functional as F
from trained import Classifier

from medjax_torch import BatchData

sgd = functools.partial(Classifier, torch.optim.SGD)


class _Clipping(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.clamp(-0.01, 0.01)


class ByFunction(Classifier):
    """Clips the gradient of its logits."""

    def __init__(self):
        super().__init__(torch.optim.SGD)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = _Clipping.apply(self.model(batch["x"]))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


def by_hook():
    """Return a component whose parameters clip their gradients."""
    component = sgd()
    for parameter in component.model.parameters():
        parameter.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    return component


class WithinForward(Classifier):
    """Clips the gradient of its logits by a hook that forward registers."""

    def __init__(self):
        super().__init__(torch.optim.SGD)

    def forward(self, batch, return_loss, eval_mode):
        self.model.train(not eval_mode)
        logits = self.model(batch["x"])
        if logits.requires_grad:
            logits.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
        return BatchData(logits=logits), F.cross_entropy(logits, batch["y"])


@pytest.mark.parametrize("accumulation", [1, 2, 3])
@pytest.mark.parametrize("component", [ByFunction, by_hook, WithinForward])
def test_clipping_sees_the_loss_that_torch_differentiates(tmp_path, component, accumulation):
    check(tmp_path, component, lr=0.5, accumulation=accumulation)
