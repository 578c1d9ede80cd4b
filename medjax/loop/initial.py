"""The state a run starts from, described before it is made."""

from __future__ import annotations

import dataclasses

import optax
from jax.sharding import Mesh

from medjax import sharding
from medjax.component import TrainableComponent
from medjax.config import Options
from medjax.optimizer import uses_value
from medjax.state import EpochLoss, TrainState, abstract_state, create_state, create_state_on


def weighs_updates(options: Options) -> bool:
    """Return whether updates count by what they weigh, as their batches are grouped by length."""
    return options.loss_arithmetic == "exact" and options.length_window > 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitialState:
    """Describes a state; see `medjax.state.create_state` for the other fields.

    Attributes
    ----------
    weighs_updates : bool
        Whether the loss of the state is an `EpochLoss`, unless the optimizer depends on the loss;
        see `weighs_updates`.
    """

    component: TrainableComponent
    optimizer: optax.GradientTransformation
    seed: int
    learning_rate: float
    accumulates: bool
    weighs_updates: bool

    def template(self, mesh: Mesh) -> TrainState:
        """Make the state on one device, or only its shapes and types for a mesh of several."""
        make = create_state if mesh.size == 1 else abstract_state
        state = make(
            self.component,
            self.optimizer,
            seed=self.seed,
            learning_rate=self.learning_rate,
            accumulates=self.accumulates,
        )
        return state.replace(losses=EpochLoss.empty()) if self._weighs(state) else state

    def place(self, template: TrainState, mesh: Mesh) -> TrainState:
        """Lay the state out over a mesh, given its `template` there."""
        if mesh.size > 1:
            return self.create(mesh)
        return self.owned(sharding.put(template, sharding.state_shardings(template, mesh)))

    def create(self, mesh: Mesh) -> TrainState:
        """Make the state on a mesh."""
        if mesh.size == 1:
            return self.place(self.template(mesh), mesh)
        state = create_state_on(
            mesh,
            self.component,
            self.optimizer,
            seed=self.seed,
            learning_rate=self.learning_rate,
            accumulates=self.accumulates,
        )
        if self._weighs(state):
            losses = sharding.put(EpochLoss.empty(), sharding.replicated(mesh))
            state = state.replace(losses=losses)
        return self.owned(state)

    def _weighs(self, state: TrainState) -> bool:
        # An optimizer that takes the loss compares it between updates, or divides by gradients.
        return self.weighs_updates and not uses_value(self.optimizer, state.params)

    def owned(self, state: TrainState) -> TrainState:
        """Let `state` keep the functions alive that its stand-ins refer to."""
        return state.owning(self.component.forward, self.optimizer)
