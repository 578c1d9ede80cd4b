"""Integers beyond 32 bits: those that depend on the batch alone are computed on the host.

The device holds integers in 32 bits, where a product such as ``ids * 2654435761`` wraps. So each
graph is searched for operations whose results may not fit. Operations that depend only on columns
and constants are cut out and run in torch on the host before each step; values computed from
their results that fit again are passed to the step as additional columns. Others are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, fx

from medjax_torch.graph import spec_augment
from medjax_torch.graph.errors import TraceError, at, line_of_stack
from medjax_torch.graph.graph import Graph, Limit
from medjax_torch.graph.guards import ancestry, is_random
from medjax_torch.graph.host_part import Cut, Names, part_of
from medjax_torch.graph.interval_rules import INT32, INT64, Interval
from medjax_torch.graph.intervals import exceeds, intervals, is_integer
from medjax_torch.graph.operations import MOVES, name_of
from medjax_torch.torch_internals import pytree

_ROOM = tuple(2**power for power in range(32, 3, -4))
"""Factors by which later batches may exceed the first; the largest that fits is used."""

_CASTS = frozenset({"_to_copy", "convert_element_type"})

_CHECKED = (torch.int32, torch.int64)
"""Dtypes of columns whose values are checked."""

_Bounds = dict[fx.Node, list[Interval | None]]


def within_32_bits(
    graph: Graph, state: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> Graph:
    """Return the graph with the limits and the host part that keep its integers from wrapping.

    Parameters
    ----------
    graph : Graph
        The graph as it was recorded.
    state : mapping of str to Tensor
        Parameters and buffers.
    columns : mapping of str to Tensor
        The tensors of the batch with which the graph was recorded.

    Returns
    -------
    Graph
        The same graph if every integer fits for any batch; otherwise one with `Graph.limits` and
        perhaps a `Graph.host_part`.

    Raises
    ------
    TraceError
        If an integer that may not fit into 32 bits depends on parameters, buffers or random
        numbers, or is returned by forward.
    """
    names = _names(graph)
    known_bounds = _bounds_of_constants(graph, names, state)
    seen = {
        node: _range(columns[name])
        for node, name in names.columns.items()
        if is_integer(node.meta.get("val"))
    }
    floats = _inexact_on_device(graph, names) | _drawn_on_host(graph, names)
    known_bounds |= _made_of_floats(graph, names, floats, columns)
    widest = _of_room(graph, known_bounds, seen, _ROOM[0])
    ever = {node for node, bounds in widest.items() if exceeds(node, bounds)}
    if not ever and not floats:
        return graph
    by_room = [_of_room(graph, known_bounds, seen, room) for room in _ROOM]
    long = [
        {node for node, bounds in of_room.items() if exceeds(node, bounds)} for of_room in by_room
    ]
    # The widest limits that do not move more operations to the host.
    place = next(i for i, nodes in enumerate(long) if len(nodes) == len(long[-1]))
    limits = _limits(names, by_room[place], ever - long[place])
    graph = dataclasses.replace(graph, limits=limits)
    if not long[place] and not floats:
        return graph
    return Cut(graph, names, long[place], floats).apply()


def _names(graph: Graph) -> Names:
    placeholders = graph.module.graph.find_nodes(op="placeholder")
    first = len(placeholders) - len(graph.columns)
    inputs = (*graph.trained, *graph.frozen, *graph.buffers)
    return Names(
        dict(zip(placeholders[:first], inputs, strict=True)),
        dict(zip(placeholders[first:], graph.columns, strict=True)),
    )


def _range(values: Tensor) -> Interval:
    if not values.numel():
        return 0, 0
    least, largest = torch.aminmax(values.detach().to(torch.int64))
    return int(least), int(largest)


def _bounds_of_constants(
    graph: Graph, names: Names, state: Mapping[str, Tensor]
) -> dict[fx.Node, Interval]:
    """Return bounds of buffers, with room to grow, and of constants."""
    bounds: dict[fx.Node, Interval] = {}
    for node, name in names.state.items():
        if is_integer(node.meta.get("val")):
            room = 2**16 if name in graph.updated else 2**4
            bounds[node] = _roomy(_range(state[name]), room, 2**30)
    for node in graph.module.graph.find_nodes(op="get_attr"):
        value = graph.constants[node.target]
        if is_integer(value):
            bounds[node] = _range(value)
    return bounds


def _made_of_floats(
    graph: Graph, names: Names, nodes: Collection[fx.Node], columns: Mapping[str, Tensor]
) -> dict[fx.Node, Interval]:
    """Return bounds of the integers among `nodes`: their values for `columns`, with room to grow.

    Later values are checked when the host passes them to the device.
    """
    wanted = [node for node in nodes if is_integer(node.meta.get("val"))]
    part, _, inputs = part_of(graph, names, wanted)
    with torch.no_grad():
        values = part(*(columns[name].detach().cpu() for name in inputs)) if wanted else []
    bounds: dict[fx.Node, Interval] = {}
    for node, value in zip(wanted, values, strict=True):
        bound = _range(torch.as_tensor(value))
        inside = INT32[0] <= bound[0] and bound[1] <= INT32[1]
        bounds[node] = _roomy(bound, 2**4) if inside else INT64
    return bounds


def _roomy(bound: Interval, room: int, most: int = INT32[1]) -> Interval:
    largest = max(abs(bound[0]), abs(bound[1]), 1)
    size = max(min(largest * room, most), largest)
    return -size, size


def _of_room(
    graph: Graph, known: Mapping[fx.Node, Interval], seen: Mapping[fx.Node, Interval], room: int
) -> _Bounds:
    of_columns = {node: _of_column(node, bound, room) for node, bound in seen.items()}
    return intervals(graph.module.graph, {**known, **of_columns})


def _of_column(node: fx.Node, bound: Interval, room: int) -> Interval:
    """Return the bounds of a column: with 32 or 64 bits, those of the first batch times `room`."""
    dtype = node.meta["val"].dtype
    if dtype == torch.bool:
        return 0, 1
    if dtype not in _CHECKED:
        limits = torch.iinfo(dtype)
        return int(limits.min), int(limits.max)
    if bound[0] < INT32[0] or bound[1] > INT32[1]:
        return INT64
    low, high = _roomy(bound, room)
    return max(low, INT32[0]), min(high, INT32[1])


def _limits(names: Names, bounds: _Bounds, tight: set[fx.Node]) -> tuple[Limit, ...]:
    """Return the limits of columns within which all of `tight` fits into 32 bits."""
    behind: set[fx.Node] = set()
    pending = list(tight)
    while pending:
        node = pending.pop()
        if node not in behind and any(map(is_integer, pytree.tree_leaves(node.meta.get("val")))):
            behind.add(node)
            pending += node.all_input_nodes
    limits = []
    for node, name in names.columns.items():
        bound = bounds[node][0] if node in behind else None
        if bound is not None and bound != INT64 and node.meta["val"].dtype in _CHECKED:
            limits.append(Limit(name, *bound))
    return tuple(limits)


def _inexact_on_device(graph: Graph, names: Names) -> set[fx.Node]:
    """Return nodes computed from floats of the batch whose results would differ on the device.

    In float64, columns and constants may hold times in seconds, which float32 resolves only to
    about two minutes. Operations that pass them on or convert them to a float are left to the
    device. Integers made from floats end at 2^31 there.
    """
    inexact: set[fx.Node] = set()
    for node in graph.module.graph.nodes:
        sources = node.all_input_nodes
        if node.op != "call_function":
            continue
        casts = name_of(node) in _CASTS
        to_integer = is_integer(node.meta.get("val"))
        if casts and to_integer and any(map(_is_float, sources)):
            if node.meta["val"].dtype == torch.int64 and _decided(node, names, by_columns=True):
                inexact.add(node)
        elif any(map(_is_double, sources)):
            computes = name_of(node) not in MOVES and not casts
            again = any(source in inexact for source in sources)
            if (computes or again) and _decided(node, names):
                inexact.add(node)
    return inexact


def _drawn_on_host(graph: Graph, names: Names) -> set[fx.Node]:
    """Return the operators whose random draws only the host can make.

    Raises
    ------
    TraceError
        If an operator takes a value that the host does not know before the step.
    """
    draws = {n for n in graph.module.graph.nodes if n.target is spec_augment.OPERATION}
    for node in draws:
        if not _decided(node, names):
            raise TraceError(
                f"forward draws masks{at(line_of_stack(node.stack_trace))} from an attention mask "
                "that depends on parameters, buffers or random numbers, so the host cannot draw "
                "them before the step. Set mask_time_prob=0 and mask_feature_prob=0."
            )
    return draws


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_double(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _decided(node: fx.Node, names: Names, *, by_columns: bool = False) -> bool:
    """Return whether a node depends only on columns and constants.

    With `by_columns`, it must also depend on at least one column.
    """
    behind = ancestry(node)
    if any(source in names.state or is_random(source) for source in behind):
        return False
    return not by_columns or any(source in names.columns for source in behind)
