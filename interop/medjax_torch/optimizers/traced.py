"""Optimizers without a rule of ours: their traced step as an optax transformation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from medjax_torch.lowerings import run
from medjax_torch.lowerings.dtypes import jax_dtype
from medjax_torch.optimizers import rule as rules
from medjax_torch.optimizers.agreement import check_agreement
from medjax_torch.optimizers.entries import (
    as_pair,
    attributes_of,
    constants_of,
    entries_of,
    hyperparams_of,
    numbers_of,
)
from medjax_torch.optimizers.first_step import EntrySpec, StateSpecs, learn
from medjax_torch.optimizers.groups import names_of
from medjax_torch.optimizers.narrowing import narrow_numbers
from medjax_torch.optimizers.numbers import BranchesOnValueError
from medjax_torch.optimizers.own_methods import check_methods
from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.stand_in import Entries, StandIn, refuse
from medjax_torch.optimizers.step_graph import StepGraph, Traced, entries_kept
from medjax_torch.optimizers.transformation import OptimizerState, factor_of

UPDATED = "has been updated"
"""EntrySpec that is 1 after the first update, int32, shape (); torch's names have no spaces."""


class TracedGroup(NamedTuple):
    """A parameter group of a traced optimizer.

    Attributes
    ----------
    names : tuple of str
        Names of its parameters, in torch's order.
    slots : dict
        The state of each parameter with a gradient.
    constants : dict
        Entries of the group that are not numbers.
    is_made_first : bool
        Whether the first update creates the states.
    """

    names: tuple[str, ...]
    slots: StateSpecs
    constants: Entries
    is_made_first: bool


def _changed(name: str, group: int, value: Any, expected: str) -> str:
    return (
        f"{name!r} of the optimizer's group {group} is {value!r}; expected {expected}, as when "
        "training was set up. It is compiled into the step: set it in configure_optimizer"
    )


class TracedPlan:
    """What is fixed about an optimizer without a rule, whose own step was traced.

    Attributes
    ----------
    groups : tuple of TracedGroup
        The parameter groups.
    """

    def __init__(
        self,
        groups: tuple[TracedGroup, ...],
        trained: tuple[str, ...],
        graphs: list[StepGraph],
        paths: list[tuple[str, ...]],
        identity: tuple[Any, ...],
    ) -> None:
        self.groups = groups
        self._trained, self._graphs = trained, graphs
        self._paths, self._identity = paths, (*identity, paths)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TracedPlan) and self._identity == other._identity

    __hash__ = None  # type: ignore[assignment]

    def read(self, optimizer: torch.optim.Optimizer) -> tuple[Hyperparams, ...]:
        """Return the current hyperparameters of every group, which the traced step takes as inputs.

        Raises
        ------
        ValueError
            If groups were added, or a value that is compiled into the step has changed.
        """
        entries = entries_of(optimizer)
        if len(entries) != len(self.groups):
            msg = (
                f"the optimizer has {len(entries)} parameter groups; expected {len(self.groups)}, "
                "as when training was set up. Add groups in configure_optimizer"
            )
            raise ValueError(msg)
        for index, (group, planned) in enumerate(zip(entries, self.groups, strict=True)):
            current = constants_of(group)
            for name, before in planned.constants.items():
                if current.get(name) != before:
                    raise ValueError(_changed(name, index, group.get(name), repr(before)))
        numbers = [
            {path: own[path] for path in paths}
            for paths, own in zip(self._paths, map(numbers_of, entries), strict=True)
        ]
        known = {(i, path): v for i, own in enumerate(numbers) for path, v in own.items()}
        for graph in self._graphs:
            for decision in graph.decisions:
                if not decision.holds(known):
                    index, path = next(iter(decision.names.values()))
                    expected = "a value for which the step takes the same branch"
                    raise ValueError(_changed(path, index, known[index, path], expected))
        return hyperparams_of(numbers)

    def transformation(
        self,
        hyperparams: tuple[Hyperparams, ...],
        learning_rate: jax.Array | float | None = None,
    ) -> optax.GradientTransformation:
        """Return the traced step as a transformation that scales the rate of the groups."""

        def init(params: dict[str, jax.Array]) -> OptimizerState:
            missing = sorted(set(self._trained) - set(params))
            if missing:
                msg = f"the optimizer updates {', '.join(missing)}; expected all of them in params"
                raise ValueError(msg)
            moments = {
                name: {
                    UPDATED: jnp.zeros((), jnp.int32),
                    **{e: _start(slot) for e, slot in kept.items() if slot.kind != "fixed"},
                }
                for group in self.groups
                for name, kept in group.slots.items()
            }
            return OptimizerState(jax.tree.map(jnp.asarray, hyperparams), moments)

        def update(
            updates: dict[str, jax.Array],
            state: OptimizerState,
            params: dict[str, jax.Array] | None = None,
        ) -> tuple[dict[str, jax.Array], OptimizerState]:
            if params is None:
                raise ValueError("the update of a torch optimizer needs params, but they are None")
            factor = factor_of(learning_rate, state.hyperparams)
            with jax.enable_x64(True):
                after, moments = self._step(updates, state, params, factor)
            deltas = jax.tree.map(jnp.zeros_like, params)
            for name, value in after.items():
                deltas[name] = value - params[name]
            return deltas, OptimizerState(state.hyperparams, moments)

        return optax.GradientTransformation(init, update)

    def _step(
        self,
        gradients: Mapping[str, jax.Array],
        state: OptimizerState,
        params: Mapping[str, jax.Array],
        factor: Any,
    ) -> tuple[dict[str, jax.Array], dict[str, rules.Slots]]:
        """Return new parameters and new moments."""
        slots = {name: kept for group in self.groups for name, kept in group.slots.items()}
        places = entries_kept(slots)
        tensors = [values[name] for values in (params, gradients) for name in self._trained]
        kept = [_widened(state.moments[n][e], slots[n][e]) for n, e in places]
        numbers = self._numbers(state.hyperparams, factor)
        is_new = {name: state.moments[name][UPDATED] == 0 for name in slots}

        def later() -> list[jax.Array]:
            return _evaluate(self._graphs[0], [*tensors, *kept, *numbers])

        def with_first() -> list[jax.Array]:
            first = _evaluate(self._graphs[1], [*tensors, *numbers])
            owners = [*self._trained, *(name for name, _ in places)]
            chosen = zip(owners, first, later(), strict=True)
            return [jnp.where(is_new[name], a, b) if name in is_new else b for name, a, b in chosen]

        if len(self._graphs) == 1 or not is_new:
            results = later()
        else:
            any_new = jnp.any(jnp.stack(list(is_new.values())))
            results = jax.lax.cond(any_new, with_first, later)
        count = len(self._trained)
        after = {
            name: value.astype(params[name].dtype)
            for name, value in zip(self._trained, results[:count], strict=True)
        }
        moments = {
            name: {**own, UPDATED: jnp.ones((), jnp.int32)} for name, own in state.moments.items()
        }
        for (name, entry), value in zip(places, results[count:], strict=True):
            moments[name][entry] = _narrowed(value, slots[name][entry], moments[name][entry])
        return after, moments

    def _numbers(self, hyperparams: tuple[Hyperparams, ...], factor: Any) -> list[jax.Array]:
        numbers = []
        for own, paths in zip(hyperparams, self._paths, strict=True):
            for path in paths:
                number = _sum(own[f"{path} as a pair"])
                is_scaled = path == "lr" and factor is not None
                numbers.append(number * factor.astype(jnp.float64) if is_scaled else number)
        return numbers


def trace_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[torch.Tensor, str],
    absent: Collection[str] = (),
) -> TracedPlan:
    """Return the plan of an optimizer that has no rule.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer. Its step is run on copies of the parameters; it is not changed itself.
    names : mapping of torch.Tensor to str
        Name of each parameter, by identity.
    absent : collection of str
        Parameters without a gradient (None in torch).

    Raises
    ------
    ValueError
        If the optimizer does more than a step on tensors (hooks, a closure, an inner optimizer),
        or if a parameter has no name or is complex.
    TraceError
        If the step cannot be traced.
    """
    refuse(optimizer)
    check_methods(optimizer)
    by_group = [
        names_of(group["params"], index, names)
        for index, group in enumerate(optimizer.param_groups)
    ]
    stand_in = StandIn(optimizer, by_group)
    parameters = stand_in.parameters
    trained = tuple(name for name in parameters if name not in absent)
    states = {n: dict(optimizer.state[p]) for n, p in parameters.items() if p in optimizer.state}
    plain, on_device = entries_of(optimizer), entries_of(optimizer, on_device=True)
    learned = learn(stand_in, plain, parameters, trained, states)

    def record(entries: list[Entries]) -> list[StepGraph]:
        graphs = []
        for is_first in (False, True)[: 1 + learned.is_made_first]:
            traced = Traced(
                stand_in, entries, parameters, trained, learned.slots, is_first=is_first
            )
            graph = traced.record(on_device=entries is on_device)
            check_agreement(stand_in, plain, traced, graph, learned.slots, is_first=is_first)
            narrow_numbers(graph.module.graph)
            graphs.append(graph)
        return graphs

    try:
        graphs = record(plain)
    except BranchesOnValueError:
        # The capturable implementation is less exact: it does some arithmetic in float32.
        if constants_all(plain) == constants_all(on_device):
            raise
        graphs = record(on_device)
    groups = tuple(
        TracedGroup(
            names=own,
            slots={name: learned.slots[name] for name in own if name in learned.slots},
            constants=constants_of(entries),
            is_made_first=learned.is_made_first,
        )
        for own, entries in zip(by_group, plain, strict=True)
    )
    paths = [tuple(numbers_of(entries)) for entries in plain]
    return TracedPlan(groups, trained, graphs, paths, _identity(optimizer, groups, stand_in))


def constants_all(groups: list[Entries]) -> list[Entries]:
    """Return the constants of each group."""
    return [constants_of(entries) for entries in groups]


def _identity(
    optimizer: torch.optim.Optimizer,
    groups: tuple[TracedGroup, ...],
    stand_in: StandIn,
) -> tuple[Any, ...]:
    """Return a token that is equal for plans that are interchangeable."""
    kinds = [(n, tuple(p.shape), p.dtype) for n, p in stand_in.parameters.items()]
    starts = [
        (name, entry, *slot[:3], np.asarray(slot.start).tobytes())
        for group in groups
        for name, kept in group.slots.items()
        for entry, slot in kept.items()
    ]
    fixed = [(group.names, group.constants, group.is_made_first) for group in groups]
    return type(optimizer), attributes_of(optimizer), kinds, starts, fixed


def _evaluate(graph: StepGraph, arguments: list[jax.Array]) -> list[jax.Array]:
    nodes = graph.module.graph.find_nodes(op="placeholder")
    inputs = [
        value.astype(jax_dtype(node.meta["val"].dtype))
        for value, node in zip(arguments, nodes, strict=True)
    ]
    constants = {name: jnp.asarray(value) for name, value in graph.constants.items()}
    results: list[jax.Array] = run(graph.module, inputs, None, constants)
    return results


def _sum(pair: jax.Array) -> jax.Array:
    return pair[0].astype(jnp.float64) + pair[1].astype(jnp.float64)


def _start(slot: EntrySpec) -> jax.Array:
    start = 0.0 if slot.start is None else slot.start
    if slot.kind == "float":
        return jnp.asarray(as_pair(float(start)))
    dtype = jnp.int32 if slot.dtype is None else jax_dtype(slot.dtype)
    return jnp.broadcast_to(jnp.asarray(start, dtype), slot.shape)


def _widened(value: jax.Array, slot: EntrySpec) -> jax.Array:
    return _sum(value) if slot.kind == "float" else value


def _narrowed(value: jax.Array, slot: EntrySpec, like: jax.Array) -> jax.Array:
    if slot.kind != "float":
        return value.astype(like.dtype)
    high = value.astype(jnp.float32)
    return jnp.stack([high, (value - high.astype(jnp.float64)).astype(jnp.float32)])
