"""Whether a graph with counted sizes can run, and how a node of it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sympy
import torch
from torch.fx import Node

from medjax_torch.graph.sizes import Condition, is_counted, length, lengths, tensors
from medjax_torch.lowerings.counted.held import Counts, Number, computable
from medjax_torch.lowerings.counted.table import RULES, Call, need, numbers, relied_on, value_of


def accept(nodes: Sequence[Node]) -> list[Condition]:
    """Return what the rules rely on to run the nodes of a graph.

    Parameters
    ----------
    nodes : sequence of Node
        All that its results need.

    Raises
    ------
    ExactShapesError
        If there is an operator for which no rule says how it treats padding, or if a result has
        itself a size that depends on values.
    """
    known = {symbol for node in nodes for symbol in _symbols(node)}
    found: list[Condition] = []
    for node in nodes:
        if not concerns(node, known):
            continue
        need(node.op == "call_function", node, "returns a size that varies")
        for size in _sizes(node):
            need(computable(size), node, f"gives a size of {size}")
            if isinstance(size, sympy.Basic):
                need(size.free_symbols <= known, node)
        if not isinstance(node.meta["val"], torch.SymInt):
            need(node.target in RULES, node)
            found += relied_on(node, RULES[node.target].check(node))
    return found


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
    """Tell whether a node makes or takes sizes, or numbers, made of the counts in `known`."""
    return any(
        is_counted(each) or _is_number(each.meta.get("val"), known)
        for each in (node, *node.all_input_nodes)
    )


def _is_number(value: Any, known: set[Any]) -> bool:
    if not isinstance(value, torch.SymInt | torch.SymFloat | torch.SymBool):
        return False
    return bool(value.node.expr.free_symbols & known)


def counted_symbols(nodes: Iterable[Node]) -> tuple[set[Any], bool]:
    """Return the symbols of all sizes in a graph, and whether it has sizes that were symbols."""
    sizes: list[Any] = [size for node in nodes for value in tensors(node) for size in value.shape]
    counted: list[Any] = [size for size in sizes if isinstance(size, torch.SymInt)]
    return {s for size in counted for s in size.node.expr.free_symbols}, bool(counted)


def run_counted(node: Node, inputs: Any, counts: Counts, ordinary: Callable[[Any], Any]) -> Any:
    """Return what a node gives, held at its bounds.

    Parameters
    ----------
    node : Node
        What `accept` has accepted.
    inputs : tuple of (tuple, dict)
        Its arguments, with arrays and `Number` in the place of nodes.
    counts : Counts
        The sizes so far; those that the node makes are added.
    ordinary : callable
        Runs the lowering for fixed sizes on such inputs.
    """
    arguments, options = inputs
    value = value_of(node)
    if isinstance(value, torch.SymInt):
        return counts.number(length(value))

    def plainly(*given: Any, **named: Any) -> Any:
        return ordinary(numbers(node.target, given, named))

    rule = RULES[node.target]
    if rule.run is None:
        return plainly(*arguments, **options)
    return rule.run(Call(node, counts, plainly), *arguments, **options)


def plain(value: Any) -> Any:
    """Return a number that depends on counts as an array, anything else as it is."""
    return value.value if isinstance(value, Number) else value
