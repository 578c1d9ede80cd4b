"""A component's forward and backward as one pure graph."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from medjax_torch.graph.conditions import Condition
from medjax_torch.graph.guards import Guard
from medjax_torch.graph.outputs import OutputSpec


@dataclass(frozen=True)
class Results:
    """What a graph returned, by name.

    Attributes
    ----------
    loss : array
        The scalar loss.
    gradients : dict of str to array
        Of the trained parameters that the loss depends on; torch has None for the others.
    outputs : sequence of array
        The tensors of forward's outputs, for `OutputSpec.rebuild`.
    updated : dict of str to array
        Parameters and buffers that forward changed, with their new values.
    checked : sequence of array
        The truth values that `Graph.conditions` are about.
    """

    loss: Any
    gradients: dict[str, Any]
    outputs: Sequence[Any]
    updated: dict[str, Any]
    checked: Sequence[Any]


@dataclass(frozen=True)
class Graph:
    """Forward and torch's own backward, without mutation, views or Python.

    Attributes
    ----------
    module : fx.GraphModule
        Takes `inputs(...)`, returns a list for `results(...)`. Operations are core aten.
    trained, frozen, buffers, columns : tuple of str
        Names of the inputs, in this order: parameters with and without gradient, buffers, tensors
        of the batch. What the graph does not use is left out.
    gradients : tuple of str
        The trained parameters that have a gradient. The others have None in torch, so the
        optimizer must skip them.
    outputs : OutputSpec
        The structure of what forward returned.
    updated : tuple of str
        Parameters and buffers whose new values the graph returns.
    constants : dict of str to Tensor
        Values of the graph's `get_attr` nodes.
    guards : tuple of Guard
        What Python looked at: the graph is valid where these hold.
    guard_module : fx.GraphModule or None
        Takes the same inputs, returns the list of what the guards compare; None without guards.
    conditions : tuple of Condition
        Truth values, returned last, that forward looked at and that depend on what changes in
        training: a step in which one is another is none of this graph's.
    left_out : dict of str to str
        Outputs of forward that the graph does not return, as values that change in training were
        read for them, and where.
    reported : tuple of str
        Lines where values were read on which nothing in the graph depends.
    effects : tuple of str
        Paths of what forward leaves in the component for its next run: a counter, a list of
        losses, a tensor where there was none. None of it is kept, so a forward that reads it finds
        at every step what it found while it was traced.
    train : bool
        Whether forward ran in training mode, with gradients.
    seconds : float
        How long tracing took.
    """

    module: fx.GraphModule
    trained: tuple[str, ...]
    frozen: tuple[str, ...]
    buffers: tuple[str, ...]
    columns: tuple[str, ...]
    gradients: tuple[str, ...]
    outputs: OutputSpec
    updated: tuple[str, ...]
    constants: dict[str, Tensor]
    guards: tuple[Guard, ...]
    guard_module: fx.GraphModule | None
    conditions: tuple[Condition, ...]
    left_out: dict[str, str]
    reported: tuple[str, ...]
    effects: tuple[str, ...]
    train: bool
    seconds: float

    def inputs(self, state: Mapping[str, Any], columns: Mapping[str, Any]) -> list[Any]:
        """Return the graph's inputs in its order.

        Parameters
        ----------
        state : mapping of str to array
            At least the parameters and buffers that the graph uses.
        columns : mapping of str to array
            The tensors of the batch by path, as `batches.columns` names them.
        """
        names = (*self.trained, *self.frozen, *self.buffers)
        return [state[name] for name in names] + [columns[name] for name in self.columns]

    def results(self, values: Sequence[Any]) -> Results:
        """Sort what the graph returned."""
        first = 1 + len(self.gradients)
        last = first + len(self.outputs.names)
        end = last + len(self.updated)
        return Results(
            loss=values[0],
            gradients=dict(zip(self.gradients, values[1:first], strict=True)),
            outputs=values[first:last],
            updated=dict(zip(self.updated, values[last:end], strict=True)),
            checked=values[end:],
        )

    def holds(self, values: Sequence[bool | int | float]) -> bool:
        """Tell whether the graph is valid where `guard_module` returned `values`."""
        return all(guard.holds(v) for guard, v in zip(self.guards, values, strict=True))

    @property
    def operations(self) -> tuple[str, ...]:
        """The distinct operations, sorted."""
        calls = (node.target for node in self.module.graph.nodes if node.op == "call_function")
        return tuple(sorted({str(target) for target in calls if target is not operator.getitem}))
