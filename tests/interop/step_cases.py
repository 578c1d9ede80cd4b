"""Typical user-defined torch optimizers, for which there is no rule."""

import math

import torch
from torch.optim import SGD, AdamW, Optimizer


class Lion(Optimizer):
    """As in the paper's own code (Chen et al. 2023)."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                p.data.mul_(1 - group["lr"] * group["weight_decay"])
                state = self.state[p]
                if len(state) == 0:
                    state["exp_avg"] = torch.zeros_like(p)
                average = state["exp_avg"]
                beta1, beta2 = group["betas"]
                update = average * beta1 + p.grad * (1 - beta1)
                p.add_(update.sign_(), alpha=-group["lr"])
                average.mul_(beta2).add_(p.grad, alpha=1 - beta2)


class CountingAdam(Optimizer):
    """Counts in a Python integer and computes with `math`, as transformers' AdamW did."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p.data)
                    state["exp_avg_sq"] = torch.zeros_like(p.data)
                    state["correction"] = 1.0
                beta1, beta2 = group["betas"]
                state["step"] += 1
                state["correction"] *= beta2
                state["exp_avg"].mul_(beta1).add_(p.grad.data, alpha=1.0 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(p.grad, p.grad, value=1.0 - beta2)
                root = math.sqrt(1.0 - state["correction"])
                size = group["lr"] * root / (1.0 - beta1 ** state["step"])
                denominator = state["exp_avg_sq"].sqrt().add_(group["eps"])
                p.data = p.data - size * state["exp_avg"] / denominator
                if group["weight_decay"] > 0.0:
                    p.data.add_(p.data, alpha=-group["lr"] * group["weight_decay"])


class CentredAdamW(AdamW):
    """AdamW on gradients without their means (Yong et al. 2020)."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.dim() > 1:
                    p.grad = p.grad - p.grad.mean(1, keepdim=True)
        return super().step(closure)


class CutSGD(SGD):
    """SGD whose momentum is initialised with the first gradient."""

    def step(self, closure=None):
        for group in self.param_groups:
            torch._foreach_clamp_min_([p.grad for p in group["params"] if p.grad is not None], -0.1)
        return super().step(closure)


class NamedAdamW(AdamW):
    """A subclass that does not change the step."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr=lr, weight_decay=0.1)

    def describe(self):
        return "AdamW"
