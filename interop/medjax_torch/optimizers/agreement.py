"""Comparison of a traced step with the step itself, in torch, with other numbers than traced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import TraceError
from medjax_torch.optimizers.entries import numbers_of, with_numbers
from medjax_torch.optimizers.first_step import StateSpecs
from medjax_torch.optimizers.stand_in import Entries, StandIn, States
from medjax_torch.optimizers.step_graph import StepGraph, Traced

_RTOL = 1e-3
"""Tolerance relative to the largest change; a constant instead of an input is wrong by a tenth."""


def check_agreement(
    stand_in: StandIn,
    entries: Sequence[Entries],
    traced: Traced,
    graph: StepGraph,
    slots: StateSpecs,
    *,
    is_first: bool,
) -> None:
    """Run the graph and the step on the same values and compare the results.

    If the trace mistook a value for a constant, such as a number read by C code, training would
    silently use wrong numbers.

    Parameters
    ----------
    stand_in : StandIn
        Runs the step.
    entries : sequence of dict
        The groups.
    traced : Traced
        The traced function.
    graph : StepGraph
        The resulting graph.
    slots : dict
        The state of each parameter.
    is_first : bool
        Whether the graph is that of the first update.

    Raises
    ------
    TraceError
        If the results differ.
    """
    parameters = {name: value.detach().cpu().clone() for name, value in stand_in.parameters.items()}
    states: States = {}
    if not is_first:
        states, _ = stand_in.step(
            entries, _leaves(parameters), _gradients(traced, parameters, 3), _started(slots, traced)
        )
    shifted = _shifted(entries, graph)
    gradients = _gradients(traced, parameters, 4)
    inputs = traced.inputs(shifted, parameters, gradients, states)
    with torch.no_grad():
        results = fx.Interpreter(graph.module).run(*inputs)
    expected = _leaves(parameters)
    after, _ = stand_in.step(shifted, expected, gradients, states)
    for name, value in zip(traced.trained, results, strict=False):
        change = (expected[name].detach() - parameters[name]).abs().max()
        _compare(stand_in, name, value, expected[name].detach(), change)
    rest = results[len(traced.trained) :]
    for (name, entry), value in zip(traced.kept, rest, strict=True):
        state = torch.as_tensor(after[name][entry])
        _compare(stand_in, f"{entry} of {name}", value, state, state.abs().max())


def _leaves(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone().requires_grad_() for name, value in parameters.items()}


def _gradients(traced: Traced, parameters: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: (0.1 * torch.randn(parameters[name].shape, generator=draw)).to(parameters[name].dtype)
        for name in traced.trained
    }


def _started(slots: StateSpecs, traced: Traced) -> States:
    """Return the states from which the graph starts; empty if the first step creates them."""
    if any(slots[name][entry].start is None for name, entry in traced.kept):
        return {}
    states: States = {}
    for name, kept in slots.items():
        states[name] = {}
        for entry, slot in kept.items():
            value = slot.start
            if slot.kind == "tensor":
                value = torch.as_tensor(value, dtype=slot.dtype).expand(slot.shape).clone()
            states[name][entry] = int(value) if slot.kind == "int" else value
    return states


def _shifted(entries: Sequence[Entries], graph: StepGraph) -> list[Entries]:
    """Return groups with other numbers, where the step takes the same branches with them."""
    numbers = [numbers_of(group) for group in entries]
    known = {(i, path): v for i, own in enumerate(numbers) for path, v in own.items()}
    for place, value in list(known.items()):
        known[place] = 0.9 * value
        if not all(decision.holds(known) for decision in graph.decisions):
            known[place] = value
    made = []
    for index, group in enumerate(entries):

        def shift(path: str, value: Any, index: int = index) -> Any:
            return value if known[index, path] == float(value) else value * 0.9

        made.append(with_numbers(group, shift))
    return made


def _compare(stand_in: StandIn, what: str, actual: Any, expected: Tensor, scale: Tensor) -> None:
    difference = (actual.to(torch.float64) - expected.to(torch.float64)).abs().max()
    size = expected.to(torch.float64).abs().max()
    resolution = torch.finfo(expected.dtype).eps if expected.is_floating_point() else 0.0
    if not difference <= _RTOL * scale.to(torch.float64) + 4 * resolution * size:
        raise TraceError(
            f"the traced step of {stand_in.kind} differs from the step itself in {what} (by "
            f"{float(difference):.2g}), so it depends on something that cannot be traced. Return "
            "an optax.GradientTransformation from configure_optimizer"
        )
