"""The result of `lr_scheduler_builder`: a torch scheduler on the host, or an optax schedule."""

from __future__ import annotations

from typing import Any, Literal

import torch

from medjax.schedules import Schedule, as_schedule
from medjax_torch.optimizers.schedulers import build_scheduler


def build_schedule(
    builder: Any, optimizer: Any, interval: Literal["epoch", "step"]
) -> tuple[Any, Schedule]:
    """Return the torch scheduler, or None, and the schedule that the step follows.

    Parameters
    ----------
    builder : callable, Schedule or None
        medkit's ``lr_scheduler_builder``; alternatively an optax schedule or one of
        `medjax.schedules`.
    optimizer : torch.optim.Optimizer or optax.GradientTransformation
        The optimizer that the component configured.
    interval : {"epoch", "step"}
        When a torch scheduler is stepped.

    Raises
    ------
    ValueError
        If the builder makes a torch scheduler, but the optimizer is an optax transformation.
    Exception
        Any exception of `builder`.
    """
    if builder is None or isinstance(builder, Schedule):
        return None, as_schedule(builder)
    if not isinstance(optimizer, torch.optim.Optimizer):
        if _is_optax(builder):
            return None, as_schedule(builder)
        msg = (
            "the component configured an optax optimizer, so lr_scheduler_builder is expected to "
            "be an optax schedule; a torch scheduler needs a torch optimizer"
        )
        raise ValueError(msg)
    try:
        scheduler = build_scheduler(builder, optimizer, interval)
    except Exception:
        # An optax schedule computes with its argument, so it fails for an optimizer.
        if _is_optax(builder):
            return None, as_schedule(builder)
        raise
    if hasattr(scheduler, "step"):
        return scheduler, as_schedule(None)
    if _is_optax(builder):
        return None, as_schedule(builder)
    msg = (
        f"lr_scheduler_builder returned a {type(scheduler).__name__}; expected a torch scheduler, "
        "an object with step(), or an optax schedule"
    )
    raise ValueError(msg)


def check_rates(
    optimizer: Any, *, warmup_steps: int, weight_decay: float, is_scheduled: bool
) -> None:
    """Refuse a warm-up, a schedule or a decay that would scale a rate that there is not.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer or optax.GradientTransformation
        What the component configured.
    warmup_steps : int
        Updates of the warm-up.
    weight_decay : float
        `Options.weight_decay`, which is multiplied by the rate.
    is_scheduled : bool
        Whether a schedule of optax gives the rate, to which those of the groups are scaled.

    Raises
    ------
    ValueError
        If a group has no rate, or a schedule nothing to scale.
    """
    uses = {
        "lr_scheduler_builder sets the learning rate": is_scheduled,
        "warmup_steps scales the learning rate": bool(warmup_steps),
        "Options.weight_decay is multiplied by the learning rate": bool(weight_decay),
    }
    use = next((words for words, is_used in uses.items() if is_used), None)
    if use is None or not isinstance(optimizer, torch.optim.Optimizer):
        return
    kind = type(optimizer).__name__
    rates = [group.get("lr") for group in optimizer.param_groups]
    if None in rates:
        setting = use.partition(" ")[0]
        msg = (
            f"{use}, but the component's {kind} has no learning rate in group "
            f"{rates.index(None)} (it is None); expected one. Give the optimizer an lr, or let it "
            f"choose its own rate, without {setting}"
        )
        raise ValueError(msg)
    if is_scheduled and not rates[0]:
        msg = (
            "lr_scheduler_builder sets the learning rate of the first group, and the others are "
            f"scaled in proportion; the first group of the component's {kind} has a rate of 0, so "
            "there is no proportion. Give it the rate with which the schedule begins"
        )
        raise ValueError(msg)


def _is_optax(builder: Any) -> bool:
    """Return whether `builder` maps the number of an update to a number, as optax schedules do."""
    try:
        float(builder(0))
    except Exception:
        return False
    return True
