"""Conversion of moments between the JAX optimizer and the torch optimizer's state.

Afterwards `optimizer.state_dict()` is what torch itself would have saved after the same updates,
so that medkit and medjax_torch can read each other's ``optimizer.pt``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import optax
import torch

from medjax import sharding
from medjax_torch.optimizers.groups import GroupPlan
from medjax_torch.optimizers.rule import Slots
from medjax_torch.optimizers.traced import TracedGroup
from medjax_torch.optimizers.traced_state import jax_slots, torch_entries
from medjax_torch.optimizers.transformation import find_state, replace_state

GroupPlans = tuple[GroupPlan, ...] | tuple[TracedGroup, ...]
"""One plan for each parameter group, all of the same kind."""


def write_moments(
    optimizer: torch.optim.Optimizer, plan: GroupPlans, opt_state: optax.OptState
) -> None:
    """Copy the moments of `opt_state` to ``optimizer.state``.

    Parameters that have not been updated yet get no entry, as in torch.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer from which `plan` was made. It is changed in place.
    plan : tuple of GroupPlan or of TracedGroup
        From `plans.plan_of`.
    opt_state : pytree
        State of an optax transformation around one of `make_transformation`.
    """
    moments = sharding.to_host(find_state(opt_state).moments)
    for parameter, name, group, planned in _parameters(optimizer, plan):
        if name not in moments:  # frozen
            continue
        if isinstance(planned, TracedGroup):
            slots = torch_entries(moments[name], planned.slots[name], parameter)
        else:
            slots = _torch_slots(moments[name], parameter, group, planned)
        if slots:
            optimizer.state[parameter] = slots
        else:
            optimizer.state.pop(parameter, None)


def read_moments(
    optimizer: torch.optim.Optimizer, plan: GroupPlans, opt_state: optax.OptState
) -> optax.OptState:
    """Return `opt_state` with copies of the moments in ``optimizer.state``.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer from which `plan` was made, for instance after ``load_state_dict``.
    plan : tuple of GroupPlan or of TracedGroup
        From `plans.plan_of`.
    opt_state : pytree
        State of an optax transformation around one of `make_transformation`, as returned by its
        `init`. Parameters without a state in torch keep their moments.

    Raises
    ------
    ValueError
        If a slot is missing or has another shape.
    """
    state = find_state(opt_state)
    moments = dict(state.moments)
    for parameter, name, _, planned in _parameters(optimizer, plan):
        entries = optimizer.state.get(parameter)
        if entries and name in moments:
            if isinstance(planned, TracedGroup):
                moments[name] = jax_slots(entries, planned.slots[name], moments[name], name)
            else:
                moments[name] = _jax_slots(entries, moments[name], name, planned)
    return replace_state(opt_state, state._replace(moments=moments))


def _parameters(
    optimizer: torch.optim.Optimizer, plan: GroupPlans
) -> Iterator[tuple[torch.Tensor, str, dict[str, Any], GroupPlan | TracedGroup]]:
    plans: tuple[GroupPlan | TracedGroup, ...] = plan
    # Groups and parameters may have been appended since the plan was made.
    for group, planned in zip(optimizer.param_groups, plans, strict=False):
        for parameter, name in zip(group["params"], planned.names, strict=False):
            yield parameter, name, group, planned


def _torch_slots(
    slots: dict[str, np.ndarray], parameter: torch.Tensor, group: dict[str, Any], plan: GroupPlan
) -> dict[str, Any]:
    # Slots with an initial value exist from the beginning.
    if not slots["step"] > 0 and not plan.initial:
        return {}
    written: dict[str, Any] = {}
    if plan.rule.step == "int":
        written["step"] = int(slots["step"])
    elif plan.rule.step == "tensor":
        # torch keeps the count on the host unless the entire update stays on the device.
        on_device = group.get("capturable") or group.get("fused")
        device = parameter.device if on_device else torch.device("cpu")
        written["step"] = torch.tensor(float(slots["step"]), dtype=torch.float32, device=device)
    for name in plan.rule.scalars:
        written[name] = torch.tensor(float(slots[name]), dtype=torch.float32)
    for name in plan.rule.slots:
        if name in slots:
            copy = torch.from_numpy(np.array(slots[name], np.float32))
            written[name] = copy.to(dtype=parameter.dtype, device=parameter.device)
    return written


def _jax_slots(entries: dict[str, Any], like: Slots, name: str, plan: GroupPlan) -> Slots:
    # SGD has no count, but its buffer exists if there has been an update.
    if plan.rule.step == "absent":
        entries = {**entries, "step": int(entries.get("momentum_buffer") is not None)}
    slots: Slots = {}
    for slot, old in like.items():
        value = entries.get(slot)
        if value is None and plan.rule.step == "absent":
            slots[slot] = old
            continue
        shape = None if value is None else tuple(np.shape(value))
        if shape != old.shape:
            msg = (
                f"{slot!r} of parameter {name} in the torch optimizer's state "
                f"{'is missing' if shape is None else f'has shape {shape}'}; expected shape "
                f"{old.shape}. Was it saved with different options?"
            )
            raise ValueError(msg)
        # `astype` copies; otherwise JAX and torch might share the memory.
        slots[slot] = sharding.put(_to_numpy(value).astype(old.dtype), old.sharding)
    return slots


def _to_numpy(value: Any) -> np.ndarray:
    # Via float32, as numpy has no bfloat16; counts up to 2**24 are exact in it.
    wide = torch.as_tensor(value).detach().cpu().to(torch.float32)
    return wide.numpy()
