"""What a torch optimizer says: which rule and options each group has, and its hyperparameters.

The optimizer object the component made stays the holder of the hyperparameters. Schedulers and
callbacks write into its groups as ever; before an update, `read_hyperparams` reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from medjax_torch.optimizers.decays import make_decay
from medjax_torch.optimizers.rule import Hyperparams, Options, Rule
from medjax_torch.optimizers.rules import RULES

SWITCHES = ("maximize", "nesterov", "amsgrad", "centered", "decoupled_weight_decay")


class GroupPlan(NamedTuple):
    """What is fixed about a parameter group while a run lasts.

    Attributes
    ----------
    rule : Rule
        How the parameters are updated.
    options : frozenset of str
        Switches that are on, and ``momentum`` if there is one.
    names : tuple of str
        Names of the group's parameters, in torch's order.
    initial : mapping
        First value of the slots that do not start at 0.
    """

    rule: Rule
    options: Options
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
        and Adadelta. `foreach`, `fused`, `capturable` and `differentiable` choose among torch's
        implementations of one formula and mean nothing here.
    names : mapping of torch.Tensor to str
        Name of each parameter, found by identity.

    Raises
    ------
    ValueError
        If the class has no rule, hooks are registered on the optimizer, or a parameter has no
        name or is complex.
    """
    rule = _find_rule(optimizer)
    initial = {slot: float(optimizer.defaults[key]) for slot, key in rule.initial.items()}
    return tuple(
        GroupPlan(rule, _options(group), _names(group["params"], index, names), initial)
        for index, group in enumerate(optimizer.param_groups)
    )


def read_hyperparams(
    optimizer: torch.optim.Optimizer, plan: tuple[GroupPlan, ...]
) -> tuple[Hyperparams, ...]:
    """Return the hyperparameters of every group as they stand now.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer that `plan` was made of.
    plan : tuple of GroupPlan
        From `plan_groups`.

    Returns
    -------
    tuple of dict
        For each group: float32 scalars, a `Decay` for each decay rate, computed in float64. The
        structure is the same on every call.

    Raises
    ------
    ValueError
        If groups were added, or an option changed that is compiled into the step.
    """
    groups = optimizer.param_groups
    if len(groups) != len(plan):
        msg = (
            f"the optimizer has {len(groups)} parameter groups; expected {len(plan)}, as when the "
            "training was set up. Add groups in configure_optimizer"
        )
        raise ValueError(msg)
    for index, (group, planned) in enumerate(zip(groups, plan, strict=True)):
        _check_options(_options(group), planned.options, index)
    return tuple(_numbers(group, planned) for group, planned in zip(groups, plan, strict=True))


def _find_rule(optimizer: torch.optim.Optimizer) -> Rule:
    found = type(optimizer)
    name = f"{found.__module__}.{found.__qualname__}"
    # A subclass may override anything, so only the classes themselves are known.
    if found not in RULES:
        msg = (
            f"the optimizer is a {name}, which has no JAX rule; expected one of torch.optim's "
            f"{', '.join(known.__name__ for known in RULES)}. For any other, return an "
            "optax.GradientTransformation over {name: array} from configure_optimizer, for "
            "instance optax.lion(learning_rate)"
        )
        raise ValueError(msg)
    if any(
        getattr(optimizer, f"_optimizer_step_{moment}_hooks", None) for moment in ("pre", "post")
    ):
        msg = (
            f"the {name} has step hooks, which JAX cannot call; expected none. Change gradients "
            "in the component, or return an optax transformation from configure_optimizer"
        )
        raise ValueError(msg)
    return RULES[found]


def _names(
    parameters: list[torch.Tensor], index: int, names: Mapping[torch.Tensor, str]
) -> tuple[str, ...]:
    for place, parameter in enumerate(parameters):
        where = f"parameter {place} of the optimizer's group {index}"
        if parameter not in names:
            msg = (
                f"{where}, of shape {tuple(parameter.shape)}, was not found in the component; "
                "expected a parameter of one of its modules"
            )
            raise ValueError(msg)
        if parameter.is_complex():
            raise ValueError(f"{where} ({names[parameter]}) is complex; expected a real dtype")
    return tuple(names[parameter] for parameter in parameters)


def _options(group: dict[str, Any]) -> Options:
    # Momentum is a number, yet whether there is any decides if a buffer is kept.
    return frozenset(name for name in (*SWITCHES, "momentum") if group.get(name))


def _check_options(options: Options, planned: Options, index: int) -> None:
    # A momentum of 0 for a while is a value like any other once there is a buffer.
    for name in sorted((options ^ planned) - (planned & {"momentum"})):
        now, before = ("on", "off") if name in options else ("off", "on")
        msg = (
            f"{name!r} of the optimizer's group {index} is {now}; expected {before}, as when the "
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
        elif name == "weight_decay" and "decoupled_weight_decay" in plan.options:
            numbers["kept"] = np.float32(1.0 - float(group["lr"]) * float(value))
        else:
            numbers[name] = np.float32(float(value))
    return numbers
