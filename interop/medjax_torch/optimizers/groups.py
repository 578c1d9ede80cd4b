"""The rule, the switches and the hyperparameters of a torch optimizer's parameter groups.

The optimizer that the component configured keeps the hyperparameters. Schedulers and callbacks set
them in its groups as usual, and `read_hyperparams` reads them before an update.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from medjax_torch.optimizers.decays import make_decay
from medjax_torch.optimizers.own_methods import check_methods
from medjax_torch.optimizers.rule import Hyperparams, Rule, Switches
from medjax_torch.optimizers.rules import RULES

SWITCHES = ("maximize", "nesterov", "amsgrad", "centered", "decoupled_weight_decay")


class GroupPlan(NamedTuple):
    """What is fixed about a parameter group during a run.

    Attributes
    ----------
    rule : Rule
        How the parameters are updated.
    switches : frozenset of str
        Switches that are on, and ``momentum`` if it is not 0.
    names : tuple of str
        Names of the group's parameters, in torch's order.
    initial : mapping
        First values of the slots that do not start at 0.
    """

    rule: Rule
    switches: Switches
    names: tuple[str, ...]
    initial: Mapping[str, float]


def plan_groups(
    optimizer: torch.optim.Optimizer, names: Mapping[torch.Tensor, str]
) -> tuple[GroupPlan, ...]:
    """Return the plan of every parameter group.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        One of torch.optim's SGD, Adam, AdamW, Adamax, NAdam, RAdam, SparseAdam, RMSprop, Adagrad
        and Adadelta. `foreach`, `fused`, `capturable` and `differentiable` select among torch's
        implementations of the same formula and are ignored.
    names : mapping of torch.Tensor to str
        Name of each parameter, by identity.

    Raises
    ------
    ValueError
        If the class has no rule, the optimizer has step hooks or methods of its own, or a
        parameter has no name or is complex.
    """
    rule = _find_rule(optimizer)
    initial = {slot: float(optimizer.defaults[key]) for slot, key in rule.initial.items()}
    return tuple(
        GroupPlan(rule, _switches(group), names_of(group["params"], index, names), initial)
        for index, group in enumerate(optimizer.param_groups)
    )


def read_hyperparams(
    optimizer: torch.optim.Optimizer, plan: tuple[GroupPlan, ...]
) -> tuple[Hyperparams, ...]:
    """Return the current hyperparameters of every group.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer from which `plan` was made.
    plan : tuple of GroupPlan
        From `plan_groups`.

    Returns
    -------
    tuple of dict
        For each group float32 scalars, and for each decay rate a `Decay` computed in float64. The
        structure is the same in every call.

    Raises
    ------
    ValueError
        If groups were added, or an option that is compiled into the step has changed.
    """
    groups = optimizer.param_groups
    if len(groups) != len(plan):
        msg = (
            f"the optimizer has {len(groups)} parameter groups; expected {len(plan)}, as when "
            "training was set up. Add groups in configure_optimizer"
        )
        raise ValueError(msg)
    for index, (group, planned) in enumerate(zip(groups, plan, strict=True)):
        _check_switches(_switches(group), planned.switches, index)
    return tuple(_numbers(group, planned) for group, planned in zip(groups, plan, strict=True))


def rule_of(optimizer: torch.optim.Optimizer) -> Rule | None:
    """Return the rule of the optimizer's class, or None if there is none.

    A subclass of a known class has its rule unless it overrides a part of the step.
    """
    for kind in type(optimizer).__mro__:
        if kind in RULES:
            return RULES[kind]
        own = (name for name in vars(kind) if name not in _HARMLESS)
        known = next((base for base in kind.__mro__ if base in RULES), None)
        if known is None or any(not _is_of(known, kind, name) for name in own):
            return None
    return None


_HARMLESS = ("__init__", "__doc__", "__module__", "__qualname__", "__repr__", "zero_grad")


def _is_of(known: type, kind: type, name: str) -> bool:
    """Return whether an attribute of a subclass is new, or the same as in the known class."""
    missing: Any = object()
    mine: Any = vars(kind)[name]
    theirs: Any = getattr(known, name, missing)
    if getattr(mine, "hooked", False):  # torch wraps inherited methods
        mine = mine.__wrapped__
    if getattr(theirs, "hooked", False):
        theirs = theirs.__wrapped__
    is_special = name.startswith("__") and name != "__getattribute__"
    return theirs is missing or mine is theirs or is_special


def _find_rule(optimizer: torch.optim.Optimizer) -> Rule:
    rule = rule_of(optimizer)
    if rule is None:
        kind = type(optimizer)
        msg = (
            f"the optimizer is a {kind.__module__}.{kind.__qualname__}, which has no JAX rule; "
            f"expected one of torch.optim's {', '.join(known.__name__ for known in RULES)}"
        )
        raise ValueError(msg)
    check_methods(optimizer)
    return rule


def names_of(
    parameters: list[torch.Tensor], index: int, names: Mapping[torch.Tensor, str]
) -> tuple[str, ...]:
    """Return the names of a group's parameters.

    Raises
    ------
    ValueError
        If one has no name or is complex.
    """
    for place, parameter in enumerate(parameters):
        where = f"parameter {place} of the optimizer's group {index}"
        if parameter not in names:
            msg = (
                f"{where}, of shape {tuple(parameter.shape)}, is not part of the component; "
                "expected a parameter of one of its modules"
            )
            raise ValueError(msg)
        if parameter.is_complex():
            raise ValueError(f"{where} ({names[parameter]}) is complex; expected a real dtype")
    return tuple(names[parameter] for parameter in parameters)


def _switches(group: dict[str, Any]) -> Switches:
    # Momentum is a number, but it is an option too, as a buffer exists only if it is not 0.
    return frozenset(name for name in (*SWITCHES, "momentum") if group.get(name))


def _check_switches(switches: Switches, planned: Switches, index: int) -> None:
    # Once there is a buffer, a temporary momentum of 0 is a value like any other.
    for name in sorted((switches ^ planned) - (planned & {"momentum"})):
        current, before = ("on", "off") if name in switches else ("off", "on")
        msg = (
            f"{name!r} of the optimizer's group {index} is {current}; expected {before}, as when "
            "training was set up. It is compiled into the step: set it in configure_optimizer"
        )
        raise ValueError(msg)


def _numbers(group: dict[str, Any], plan: GroupPlan) -> Hyperparams:
    numbers: Hyperparams = {}
    for name in plan.rule.numbers:
        value = group[name]
        if name == "betas":
            numbers["beta1"], numbers["beta2"] = (make_decay(float(beta)) for beta in value)
        elif name in ("alpha", "rho"):
            numbers[name] = make_decay(float(value))
        elif name == "dampening":
            numbers["undamped"] = np.float32(1.0 - float(value))
        elif name == "weight_decay" and "decoupled_weight_decay" in plan.switches:
            numbers["kept"] = np.float32(1.0 - float(group["lr"]) * float(value))
        else:
            numbers[name] = np.float32(float(value))
    return numbers
