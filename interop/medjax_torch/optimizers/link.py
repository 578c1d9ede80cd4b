"""What ties the torch optimizer and scheduler on the host to the optimizer state on the device."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import numpy as np
import optax
import torch

from medjax import sharding
from medjax.optimizer.decay import SelfDecaying
from medjax.state import TrainState
from medjax_torch.optimizers.entries import attributes_of
from medjax_torch.optimizers.living_state import LivingState
from medjax_torch.optimizers.own_methods import noticed
from medjax_torch.optimizers.plans import Plan, RulePlan, plan_of
from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.torch_state import read_moments, write_moments
from medjax_torch.optimizers.transformation import (
    decaying,
    find_state,
    leaving_alone,
    replace_state,
    set_hyperparams,
)


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
    weight_decay : float
        `Options.weight_decay`, applied at the rate of each group.
    holds_rate : bool
        Whether the groups hold the learning rate; if not, a schedule on the device does, and the
        groups only say how their rates are related.

    Attributes
    ----------
    held : frozenset of str
        Names of the parameters in the groups.

    Raises
    ------
    ValueError
        If a gradient of 0 has to be told from none in float16, which has no number for that.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Mapping[torch.Tensor, str],
        absent: Collection[str],
        sometimes: Collection[str] = (),
        *,
        weight_decay: float = 0.0,
        holds_rate: bool = True,
    ) -> None:
        _check_marks(optimizer, names, absent, sometimes)
        self.holds_rate = holds_rate
        self._optimizer = optimizer
        self._absent, self._sometimes = frozenset(absent), frozenset(sometimes)
        self._weight_decay = weight_decay
        self._plan: Plan = plan_of(optimizer, names, absent)
        self.held = frozenset(name for group in self._plan.groups for name in group.names)
        self._last = self._plan.read(optimizer)
        self._seen = self.settings()
        self._fixed_seen = self._fixed()
        self._living: LivingState | None = None

    @property
    def learning_rate(self) -> float:
        """Rate of the first group that has one other than 0; 0 if there is none."""
        rates = (group.get("lr") for group in self._optimizer.param_groups)
        return next((float(rate) for rate in rates if rate), 0.0)

    @property
    def rule(self) -> tuple[Plan, frozenset[str], float]:
        """What the transformation depends on beside its state, to be compared."""
        return self._plan, self._sometimes, self._weight_decay

    def configure(self, learning_rate: Any) -> optax.GradientTransformation:
        """Return the transformation; see `medjax.component.ConfigureOptimizer`."""
        made = self._plan.transformation(self._last, learning_rate)
        marks = isinstance(self._optimizer, torch.optim.SparseAdam)
        if self._weight_decay:
            updated = [[n for n in g.names if n not in self._absent] for g in self._plan.groups]
            made = decaying(
                made, updated, self._weight_decay, learning_rate, is_marked_by_rows=marks
            )
        return SelfDecaying(*leaving_alone(made, self._sometimes, is_marked_by_rows=marks))

    def is_current(self) -> bool:
        """Tell whether the optimizer is as it was planned, but for settings of its groups."""
        return self._fixed() == self._fixed_seen

    def sync(self, state: TrainState) -> TrainState:
        """Return the state with the hyperparameters that stand in the groups now."""
        if self.settings() == self._seen:
            return state
        self._seen = self.settings()
        self._last = self._plan.read(self._optimizer)
        return self._pushed(state, self._last)

    def adopt(self, state: TrainState) -> TrainState:
        """Return the state with hyperparameters and moments of the torch optimizer."""
        moved = read_moments(self._optimizer, self._plan.groups, state.opt_state)
        return self.pushed(state.replace(opt_state=moved))

    def pushed(self, state: TrainState) -> TrainState:
        """Return the state with the hyperparameters of the groups, changed or not."""
        return self._pushed(state, self._plan.read(self._optimizer))

    def hand_back(self, state: TrainState) -> None:
        """Write the moments of `state` into the torch optimizer."""
        with contextlib.nullcontext() if self._living is None else self._living.aside():
            write_moments(self._optimizer, self._plan.groups, state.opt_state)
        if self._living is not None:
            self._living.brought()

    def watch(self, bring: Callable[[], None]) -> None:
        """Call `bring` when user code uses the torch optimizer's state and it is out of date."""
        self._living = LivingState(self._optimizer, bring)

    def release(self) -> None:
        """Stop watching the torch optimizer's state."""
        if self._living is not None:
            self._living.release()
        self._living = None

    def outdate(self) -> None:
        """Note that the moments on the device are newer than those of the torch optimizer."""
        if self._living is not None:
            self._living.outdate()

    def with_written(self, state: TrainState) -> TrainState:
        """Return the state with the moments of the torch optimizer, if user code changed them.

        Those of parameters that have no state any more begin anew.
        """
        living = self._living
        if living is None or not living.is_written():
            return state
        living.rewatch()
        held = find_state(state.opt_state)
        params = dict(state.params)
        fresh = find_state(self._plan.transformation(self._last).init(params)).moments
        moments = jax.tree.map(
            lambda new, old: sharding.put(new, old.sharding), fresh, held.moments
        )
        restarted = replace_state(state.opt_state, held._replace(moments=moments))
        with living.aside():
            read = read_moments(self._optimizer, self._plan.groups, restarted)
        return state.replace(opt_state=read)

    def _pushed(self, state: TrainState, hyperparams: tuple[Hyperparams, ...]) -> TrainState:
        state = state.replace(opt_state=set_hyperparams(state.opt_state, hyperparams))
        if not self.holds_rate:
            return state
        rate = sharding.put(np.float32(self.learning_rate), state.learning_rate.sharding)
        return state.replace(learning_rate=rate)

    def settings(self) -> list[list[Any]]:
        """Return what the groups say, to notice a change without computing anything."""
        return [
            [_as_it_is(value) for name, value in group.items() if name != "params"]
            for group in self._optimizer.param_groups
        ]

    def _fixed(self) -> tuple[Any, ...]:
        """Return what the step is made for: parameters by group, methods, attributes it reads."""
        optimizer = self._optimizer
        groups = [[id(parameter) for parameter in g["params"]] for g in optimizer.param_groups]
        reads_attributes = not isinstance(self._plan, RulePlan)
        return groups, noticed(optimizer), attributes_of(optimizer) if reads_attributes else None


def _as_it_is(value: Any) -> Any:
    """Return a setting that does not change with the object it is read from."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return copy.copy(value) if isinstance(value, list | dict) else value


def _check_marks(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
    absent: Collection[str],
    sometimes: Collection[str],
) -> None:
    """Refuse float16 where `rule.TOUCH`, far below its smallest number, would mark a gradient."""
    by_rows = isinstance(optimizer, torch.optim.SparseAdam)
    halves = {n for tensor, n in names.items() if tensor.dtype == torch.float16} - {*absent}
    marked = sorted(halves if by_rows else halves & {*sometimes})
    if not marked:
        return
    reason = (
        "SparseAdam divides by its eps, which is 0 in float16, for rows whose gradient is 0"
        if by_rows
        else "some batches give no gradient, which float16 cannot distinguish from a gradient of 0"
    )
    msg = (
        f"{', '.join(marked)} is float16, and {reason}; expected float32 or bfloat16. Keep it in "
        "float32 (.float()); Options(precision='bfloat16') makes matrix products faster"
    )
    raise ValueError(msg)
