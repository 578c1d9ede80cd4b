"""Rounding of float64 numbers that are combined with narrower tensors."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import SymFloat, Tensor, fx

from medjax_torch.torch_internals import OpOverload

aten = torch.ops.aten


def narrow_numbers(graph: fx.Graph) -> None:
    """Round numbers to float32 where a torch operation combines them with narrower tensors.

    In torch a Python number never determines the dtype of a computation; in JAX a float64 scalar
    would: a tensor filled with 0.3 would no longer equal 0.3.

    Parameters
    ----------
    graph : fx.Graph
        A functional graph with the traced values in its nodes. It is changed in place.
    """
    rounded: dict[fx.Node, fx.Node] = {}
    for node in list(graph.nodes):
        if not isinstance(node.target, OpOverload) or not _is_narrow(node):
            continue

        def take(argument: fx.Node) -> fx.Node:
            if not _is_number(argument):
                return argument
            if argument not in rounded:
                with graph.inserting_after(argument):
                    made = graph.call_function(
                        aten._to_copy.default, (argument,), {"dtype": torch.float32}
                    )
                made.meta["val"] = torch.empty((), dtype=torch.float32, device="meta")
                rounded[argument] = made
            return rounded[argument]

        node.args = fx.node.map_arg(node.args, take)
        node.kwargs = fx.node.map_arg(node.kwargs, take)


def _is_number(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if isinstance(value, Tensor):
        return value.dim() == 0 and value.dtype == torch.float64
    return isinstance(value, SymFloat)


def _is_narrow(node: fx.Node) -> bool:
    """Return whether a node computes in a narrower dtype than float64."""
    if node.target is aten._local_scalar_dense.default:
        return False
    values: list[Any] = [argument.meta.get("val") for argument in node.all_input_nodes]
    floats = [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]
    decisive = [value for value in floats if value.dim()] or floats
    if not decisive:
        return False
    common = functools.reduce(torch.promote_types, (value.dtype for value in decisive))
    return common != torch.float64
