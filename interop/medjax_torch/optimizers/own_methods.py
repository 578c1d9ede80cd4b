"""What an optimizer does beside the step of its class: hooks, and methods of its own."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

_OTHER = "return an optax.GradientTransformation over {name: array} from configure_optimizer"


def noticed(optimizer: torch.optim.Optimizer) -> tuple[Any, ...]:
    """Return what `check_methods` looks at, to be compared."""
    hooks = (getattr(optimizer, name, None) or () for name in _HOOKS)
    return _has_own_step(optimizer), vars(optimizer).get("zero_grad"), *map(tuple, hooks)


def check_methods(optimizer: torch.optim.Optimizer) -> None:
    """Check that the optimizer does no more than the step of its class.

    Raises
    ------
    ValueError
        If it has step hooks, a step of its own, or a `zero_grad` that keeps gradients.
    """
    kind = f"{type(optimizer).__module__}.{type(optimizer).__qualname__}"
    if any(getattr(optimizer, name, None) for name in _HOOKS):
        msg = (
            f"the {kind} has step hooks, which JAX cannot call; expected none. Clip gradients by "
            "Options(max_grad_norm=...), modify them in the step of a subclass, or "
            f"{_OTHER}"
        )
        raise ValueError(msg)
    if _has_own_step(optimizer):
        raise ValueError(
            f"the {kind} has its own step, set on the object; expected the step of its class. "
            "Clip gradients by Options(max_grad_norm=...), define the step in a subclass, or "
            f"{_OTHER}"
        )
    if not _removes_gradients(optimizer):
        raise ValueError(
            f"the {kind} has a zero_grad that keeps gradients, or is set on the object; expected "
            "one that sets them to None, as JAX computes those of each update anew. If it sets "
            "them to 0, leave it out: the updates are the same where every parameter gets a "
            "gradient in each. Keep what gradients add up to in self.state[parameter], in the "
            f"step, or {_OTHER}"
        )


_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def _has_own_step(optimizer: torch.optim.Optimizer) -> bool:
    step = vars(optimizer).get("step")
    if step is None:
        return False
    # A scheduler of torch wraps the step of the class, to notice when it is called.
    wrapped = getattr(step, "__wrapped__", None) if hasattr(step, _BY_SCHEDULER) else step
    function = getattr(wrapped, "__func__", wrapped)
    return all(function is not vars(kind).get("step") for kind in type(optimizer).__mro__)


_BY_SCHEDULER = "_wrapped_by_lr_sched"


def _removes_gradients(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether `zero_grad` leaves parameters as they are, and no gradients."""
    if "zero_grad" in vars(optimizer):
        return False
    if type(optimizer).zero_grad is torch.optim.Optimizer.zero_grad:
        return True
    tried = copy.copy(optimizer)
    parameter = torch.ones(2, requires_grad=True)
    parameter.grad = torch.ones(2)
    tried.param_groups = [{**group, "params": [parameter]} for group in optimizer.param_groups[:1]]
    tried.zero_grad()
    left: Tensor | None = parameter.grad
    return left is None and bool((parameter == 1).all())
