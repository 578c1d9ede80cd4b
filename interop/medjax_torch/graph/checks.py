"""Checks for what a graph cannot reproduce, made before the graph is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, fx

from medjax_torch.component_state import Inventory
from medjax_torch.component_state.modules import separate
from medjax_torch.component_state.tensors import overlapping
from medjax_torch.graph.errors import TraceError, at, line_of_stack
from medjax_torch.graph.graph import Graph
from medjax_torch.torch_internals import OpOverload


def check_hooks(inventory: Inventory) -> None:
    """Raise TraceError if a parameter has a hook that runs after its gradient is accumulated."""
    for name, parameter in inventory.parameters.items():
        if getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise TraceError(
                f"{name} has a hook that runs after its gradient is accumulated, which cannot be "
                "part of a graph. Use Tensor.register_hook, or do the same in the optimizer."
            )


def check_constants(recorded: fx.GraphModule, *, train: bool) -> None:
    """Raise TraceError if forward trains or writes to a tensor that the component does not hold.

    Parameters
    ----------
    recorded : fx.GraphModule
        The recording of the first pass, with mutation and views.
    train : bool
        Whether the component is being trained.
    """
    for node in recorded.graph.find_nodes(op="get_attr"):
        value = getattr(recorded, node.target)
        if train and isinstance(value, Tensor) and value.requires_grad:
            raise TraceError(
                f"forward uses a tensor of shape {tuple(value.shape)} that requires a gradient "
                "and cannot be reached from the component (a global?), so it would never be "
                "updated. Keep it in an attribute of the component."
            )
    for node in recorded.graph.nodes:
        for written in written_by(node):
            if viewed(written).op == "get_attr":
                raise TraceError(
                    f"forward writes to a tensor{at(line_of_stack(node.stack_trace))} that cannot "
                    "be reached from the component (a global?), so the new values would be lost. "
                    "Keep it in an attribute of the component."
                )


def check_aliases(inventory: Inventory, graph: Graph) -> None:
    """Raise TraceError if a tensor that changes shares memory with another one.

    A tensor that forward overwrites without reading it gets its own memory instead, as it would
    have after a run of forward in torch. The old `spectral_norm` leaves such a weight.
    """
    read = {*graph.trained, *graph.frozen, *graph.buffers}
    for pair in overlapping(inventory.tensors):
        overwritten = [n for n in pair if n in inventory.buffers and n not in read]
        if overwritten and overwritten[0] in graph.updated:
            separate(inventory, overwritten[0])
            continue
        for name, other in (pair, pair[::-1]):
            if name in graph.updated or name in graph.trained:
                raise TraceError(
                    f"{name} changes in training and shares its memory with {other}, which would "
                    "have to change with it. Assign the same tensor to both, or clone one of them."
                )


def written_by(node: fx.Node) -> Iterator[Any]:
    """Yield the arguments that an operation writes to."""
    if isinstance(node.target, OpOverload) and node.target._schema.is_mutable:
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            if argument.is_write and isinstance(value, fx.Node):
                yield value


def viewed(node: fx.Node) -> fx.Node:
    """Return the tensor whose memory a node shares, through views and in-place operations."""
    while isinstance(node.target, OpOverload):
        shared = [argument.alias_info for argument in node.target._schema.arguments]
        if not shared or shared[0] is None or not isinstance(node.args[0], fx.Node):
            break
        node = node.args[0]
    return node
