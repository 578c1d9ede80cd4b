"""Whether a graph with counted sizes can run, and how its nodes are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

from medjax_torch.graph.sizes import Condition, is_counted, length, lengths, tensors
from medjax_torch.lowerings.counted.counts import Counts, Number, computable
from medjax_torch.lowerings.counted.table import RULES, Call, need, numbers, relied_on, value_of


def accept(nodes: Sequence[Node]) -> list[Condition]:
    """Check that a graph can run with counted sizes, and return the conditions this relies on.

    Parameters
    ----------
    nodes : sequence of Node
        All nodes that the graph's results depend on.

    Raises
    ------
    ExactShapesError
        If an operator has no rule for padding, or if the size of a result depends on values.
    """
    known = {symbol for node in nodes for symbol in _symbols(node)}
    conditions: list[Condition] = []
    for node in nodes:
        if not concerns(node, known):
            continue
        need(node.op == "call_function", node, "returns a size that varies")
        is_read = node.target is torch.ops.aten._local_scalar_dense.default
        need(not is_read, node, "reads a number that is a size")
        for size in _sizes(node):
            need(computable(size), node, f"has a result of size {size}")
            if isinstance(size, sympy.Basic):
                need(size.free_symbols <= known, node)
        if not isinstance(node.meta["val"], torch.SymInt):
            need(node.target in RULES, node)
            conditions += relied_on(node, RULES[node.target].check(node))
    return conditions


def _symbols(node: Node) -> Iterator[Any]:
    for value in tensors(node):
        for size in lengths(value):
            if isinstance(size, sympy.Basic):
                yield from size.free_symbols


def _sizes(node: Node) -> Iterator[Any]:
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt):
        yield length(value)
    for tensor in tensors(node):
        yield from lengths(tensor)


def concerns(node: Node, known: set[Any]) -> bool:
    """Return whether a node takes or returns sizes or numbers that depend on counts in `known`."""
    return any(
        is_counted(each) or _is_number(each.meta.get("val"), known)
        for each in (node, *node.all_input_nodes)
    )


def _is_number(value: Any, known: set[Any]) -> bool:
    if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return False
    return bool(value.node.expr.free_symbols & known)


def counted_symbols(nodes: Iterable[Node]) -> tuple[set[Any], bool]:
    """Return the symbols of all sizes in a graph, and whether any size is symbolic."""
    sizes: list[Any] = [size for node in nodes for value in tensors(node) for size in value.shape]
    counted: list[Any] = [size for size in sizes if isinstance(size, torch.SymInt)]
    return {s for size in counted for s in size.node.expr.free_symbols}, bool(counted)


def run_counted(node: Node, inputs: Any, counts: Counts, ordinary: Callable[[Any], Any]) -> Any:
    """Run a node; its result has its shape at the bounds.

    Parameters
    ----------
    node : Node
        A node accepted by `accept`.
    inputs : tuple of (tuple, dict)
        Its positional and keyword arguments, with arrays and `Number` in place of nodes.
    counts : Counts
        The counts so far; those that the node determines are added.
    ordinary : callable
        Runs the node's lowering for fixed sizes on such inputs.
    """
    arguments, options = inputs
    value = value_of(node)
    if isinstance(value, torch.SymInt):
        return counts.number(length(value))

    def plainly(*arguments: Any, **named: Any) -> Any:
        return ordinary(numbers(node.target, arguments, named))

    rule = RULES[node.target]
    if rule.run is None:
        return plainly(*arguments, **options)
    return rule.run(Call(node, counts, plainly), *arguments, **options)


def plain(value: Any) -> Any:
    """Convert a number that depends on counts to an array; return anything else unchanged."""
    return value.value if isinstance(value, Number) else value
