"""Whether two graphs, recorded in different operations, compute the same numbers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from medjax_torch.component_state import Inventory
from medjax_torch.graph.graph import Graph
from medjax_torch.verification.comparison import differences
from medjax_torch.verification.graph_in_torch import outcome_in_torch
from medjax_torch.verification.moved_weights import moved

_TOLERANCE = 1e-5
"""Largest relative difference: both run the same kernels on the same numbers."""


def agree(
    first: Graph,
    second: Graph,
    fixed: Collection[str],
    *,
    inventory: Inventory,
    batch: Mapping[str, Any],
) -> bool:
    """Return whether two graphs compute the same on a batch, at these weights and at others.

    A head that begins at zero hides what it multiplies, so the component's own weights are not
    enough. Random draws are fixed.

    Parameters
    ----------
    first, second : Graph
        Graphs of the same component, both valid for the batch.
    fixed : collection of str
        Names of parameters and buffers that keep their values.
    inventory : Inventory
        The component's content.
    batch : mapping of str to value
        The batch.
    """
    if _contract(first) != _contract(second):
        return False
    other = moved(inventory, {}, seed=0)
    for name in fixed:
        kind = other.buffers if name in other.buffers else other.parameters
        kind[name] = inventory.tensors[name]
    for each in (inventory, other):
        one, another = (outcome_in_torch(graph, each, batch) for graph in (first, second))
        if differences(one, another, ("one", "the other"))[0].relative > _TOLERANCE:
            return False
    return True


def _contract(graph: Graph) -> tuple[Any, ...]:
    """Return what must be equal apart from numbers."""
    decisions = graph.guards, graph.conditions, graph.left_out
    return graph.gradients, graph.updated, graph.outputs, graph.varying, *decisions
