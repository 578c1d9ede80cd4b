"""Tensors that forward replaces by others of another shape: only their values are state."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import fx

from medjax_torch.graph.graph import Graph, same
from medjax_torch.graph.trial import Trial

_SOME = 3
"""Stands for a size that depends on values."""


def sees_shape(graph: Graph, name: str, trial: Trial) -> bool:
    """Return whether a graph depends on the shape of a tensor that forward replaces.

    Parameters
    ----------
    graph : Graph
        The graph, with `name` in its `reshaped`.
    name : str
        Name of the tensor.
    trial : Trial
        Records forward again.
    """
    left = graph.reshaped[name]
    shape = [size if type(size) is int else _SOME for size in left.shape]
    try:
        later = trial.record_reshaped(name, torch.zeros(shape, dtype=left.dtype))
    except Exception:  # forward cannot be recorded with this shape
        return True
    later = _without_update(later, name)
    # What only the new value needs may not fit into 32 bits.
    return not same(
        graph, dataclasses.replace(later, limits=graph.limits, host_part=graph.host_part)
    )


def _without_update(graph: Graph, name: str) -> Graph:
    """Return a graph that does not compute the new value of a tensor."""
    if name not in graph.updated:
        return graph
    module = fx.GraphModule(graph.module, copy.deepcopy(graph.module.graph))
    output = module.graph.output_node()
    results: Any = output.args[0]
    place = 1 + len(graph.gradients) + len(graph.outputs.names) + graph.updated.index(name)
    output.args = ([*results[:place], *results[place + 1 :]],)
    module.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
    inputs = module.graph.find_nodes(op="placeholder")
    unused = {each for each, node in zip(graph.inputs_named, inputs, strict=True) if not node.users}
    for node in inputs:
        if not node.users:
            module.graph.erase_node(node)
    kinds = ("trained", "frozen", "buffers", "columns")
    used = {k: tuple(n for n in getattr(graph, k) if n not in unused) for k in kinds}
    updated = tuple(each for each in graph.updated if each != name)
    changes: dict[str, Any] = {"module": module, "updated": updated, **used}
    return dataclasses.replace(graph, **changes)
