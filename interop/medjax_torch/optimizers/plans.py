"""How an optimizer's step runs in JAX: by one of our own update rules, or by tracing it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, Protocol

import jax
import optax
import torch

from medjax_torch.optimizers.groups import GroupPlan, plan_groups, read_hyperparams, rule_of
from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.traced import TracedGroup, trace_optimizer
from medjax_torch.optimizers.transformation import make_transformation


class Plan(Protocol):
    """What is fixed about an optimizer during a run; comparable with ``==``."""

    @property
    def groups(self) -> tuple[GroupPlan, ...] | tuple[TracedGroup, ...]:
        """The parameter groups."""

    def read(self, optimizer: torch.optim.Optimizer) -> tuple[Hyperparams, ...]:
        """Return the current hyperparameters of every group."""

    def transformation(
        self,
        hyperparams: tuple[Hyperparams, ...],
        learning_rate: jax.Array | float | None = None,
    ) -> optax.GradientTransformation:
        """Return the optimizer as a transformation.

        Parameters
        ----------
        hyperparams : tuple of Hyperparams
            From `read`; they are the first ones in its state.
        learning_rate : array or float, optional
            The rate of a schedule or warm-up, to which those of the groups are scaled.
        """


class RulePlan(NamedTuple):
    """The plan of an optimizer whose class has a rule in `rules`."""

    groups: tuple[GroupPlan, ...]
    absent: frozenset[str]

    def read(self, optimizer: torch.optim.Optimizer) -> tuple[Hyperparams, ...]:
        """Return the hyperparameters; see `groups.read_hyperparams`."""
        return read_hyperparams(optimizer, self.groups)

    def transformation(
        self,
        hyperparams: tuple[Hyperparams, ...],
        learning_rate: jax.Array | float | None = None,
    ) -> optax.GradientTransformation:
        """Return the transformation; see `transformation.make_transformation`."""
        return make_transformation(self.groups, hyperparams, self.absent, learning_rate)


def plan_of(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
    absent: Collection[str] = (),
) -> Plan:
    """Return the plan of a torch optimizer.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        An optimizer of a class with a rule, or any other whose step consists of tensor operations.
    names : mapping of torch.Tensor to str
        Name of each parameter, by identity.
    absent : collection of str
        Parameters without a gradient (None in torch).

    Raises
    ------
    ValueError, TraceError
        See `groups.plan_groups` and `traced.trace_optimizer`.
    """
    if rule_of(optimizer) is None:
        return trace_optimizer(optimizer, names, absent)
    return RulePlan(plan_groups(optimizer, names), frozenset(absent))
