"""What ties the torch optimizer and scheduler on the host to the optimizer state on the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import optax
import torch

from medjax import sharding
from medjax.state import TrainState
from medjax_torch.optimizers.groups import SWITCHES, GroupPlan, plan_groups, read_hyperparams
from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.torch_state import read_moments, write_moments
from medjax_torch.optimizers.transformation import make_transformation, set_hyperparams


class OptimizerLink:
    """A torch optimizer whose hyperparameters are in force on the device.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        What the component made; schedulers and callbacks write into its groups.
    names : mapping of torch.Tensor to str
        Names of the parameters.
    absent : collection of str
        Parameters that get no gradient.
    sometimes : collection of str
        Parameters that get one from some batches only.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Mapping[torch.Tensor, str],
        absent: Collection[str],
        sometimes: Collection[str] = (),
    ) -> None:
        self._optimizer = optimizer
        self._names = dict(names)
        self._plan: tuple[GroupPlan, ...] = plan_groups(optimizer, names)
        self._absent = absent
        self._sometimes = sometimes
        self._last = read_hyperparams(optimizer, self._plan)
        self._seen = self._settings()
        self._shape_seen = self._shape()

    @property
    def learning_rate(self) -> float:
        """Rate of the first group."""
        return float(self._optimizer.param_groups[0]["lr"])

    @property
    def rule(self) -> tuple[Any, ...]:
        """What the transformation depends on beside its state, to be compared."""
        return self._plan, frozenset(self._absent), frozenset(self._sometimes)

    def configure(self, learning_rate: Any) -> optax.GradientTransformation:
        """Return the transformation; see `medjax.component.ConfigureOptimizer`."""
        return make_transformation(
            self._plan, self._last, self._absent, learning_rate, self._sometimes
        )

    def is_current(self) -> bool:
        """Tell whether the groups hold the parameters, with the options, that were planned."""
        if self._shape() == self._shape_seen:
            return True
        return plan_groups(self._optimizer, self._names) == self._plan

    def sync(self, state: TrainState) -> TrainState:
        """Return the state with the hyperparameters that stand in the groups now."""
        if self._settings() == self._seen:
            return state
        self._seen = self._settings()
        self._last = read_hyperparams(self._optimizer, self._plan)
        return self._pushed(state, self._last)

    def adopt(self, state: TrainState) -> TrainState:
        """Return the state with hyperparameters and moments of the torch optimizer."""
        state = state.replace(opt_state=read_moments(self._optimizer, self._plan, state.opt_state))
        return self.pushed(state)

    def pushed(self, state: TrainState) -> TrainState:
        """Return the state with the hyperparameters of the groups, changed or not."""
        return self._pushed(state, read_hyperparams(self._optimizer, self._plan))

    def hand_back(self, state: TrainState) -> None:
        """Write the moments of `state` into the torch optimizer."""
        write_moments(self._optimizer, self._plan, state.opt_state)

    def _pushed(self, state: TrainState, hyperparams: tuple[Hyperparams, ...]) -> TrainState:
        rate = sharding.put(np.float32(self.learning_rate), state.learning_rate.sharding)
        opt_state = set_hyperparams(state.opt_state, hyperparams)
        return state.replace(opt_state=opt_state, learning_rate=rate)

    def _settings(self) -> list[list[Any]]:
        """Return what the groups say, to notice a change without computing anything."""
        return [
            [value for name, value in group.items() if name != "params"]
            for group in self._optimizer.param_groups
        ]

    def _shape(self) -> list[tuple[Any, ...]]:
        """Return what changes when a group, a parameter or an option is added."""
        return [
            (len(group["params"]), *(bool(group.get(name)) for name in SWITCHES))
            for group in self._optimizer.param_groups
        ]
