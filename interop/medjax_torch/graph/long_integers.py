"""Integers that leave 32 bits: what the batch decides is computed in torch, on the host.

The device holds integers in 32 bits, where a product such as ``ids * 2654435761`` wraps. So each
graph is searched for operations whose results may not fit. Those that columns and constants
decide alone are cut out and run in torch on the host before each step, and what is made of them
that fits again is handed to the step as further columns. Others are refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from medjax_torch.graph.errors import TraceError, at, line_of_stack
from medjax_torch.graph.guards import is_random
from medjax_torch.graph.intervals import INT32, INT64, Interval, exceeds, intervals, is_integer
from medjax_torch.graph.operations import MOVES, name_of
from medjax_torch.graph.record import Graph, HostPart, Limit

aten = torch.ops.aten
prims = torch.ops.prims

_ROOM = tuple(2**power for power in range(32, 3, -4))
"""How many times larger later batches may be than the first; the largest with which all fits."""

_CONVERTED = frozenset(
    ["add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "pow", "where", "true_divide"]
)
"""Operations that make a float of an integer beside a float, as conversion first does."""

_CASTS = frozenset({"_to_copy", "convert_element_type"})

_CHECKED = (torch.int32, torch.int64)
"""Types of columns whose values are looked at."""

_WAYS_OUT = (
    ", together with parameters, buffers or random numbers, so that the host cannot compute it "
    "before the step. Compute with floats there, or take what the batch decides out of it."
)

_Bounds = dict[fx.Node, list[Interval | None]]


class _Names(NamedTuple):
    """What a graph's inputs are."""

    state: dict[fx.Node, str]
    columns: dict[fx.Node, str]


def within_32_bits(
    graph: Graph, state: Mapping[str, Tensor], columns: Mapping[str, Tensor]
) -> Graph:
    """Return the graph with what it needs so that no integer wraps on the device.

    Parameters
    ----------
    graph : Graph
        As it was recorded.
    state : mapping of str to Tensor
        Parameters and buffers.
    columns : mapping of str to Tensor
        The tensors of the batch with which it was recorded.

    Returns
    -------
    Graph
        The same if every integer fits, whatever the batch; else with `Graph.limits` and perhaps a
        `Graph.host_part`.

    Raises
    ------
    TraceError
        If an integer may leave 32 bits that depends on parameters, buffers or random numbers, or
        that forward returns.
    """
    names = _names(graph)
    held = _held(graph, names, state)
    seen = {
        node: _range(columns[name])
        for node, name in names.columns.items()
        if is_integer(node.meta.get("val"))
    }
    floats = _inexact_on_device(graph, names)
    held |= _made_of_floats(graph, names, floats, columns)
    whole = _of_room(graph, held, seen, _ROOM[0])
    ever = {node for node, bounds in whole.items() if exceeds(node, bounds)}
    if not ever and not floats:
        return graph
    by_room = [_of_room(graph, held, seen, room) for room in _ROOM]
    long = [{node for node, bounds in found.items() if exceeds(node, bounds)} for found in by_room]
    # As wide as possible, as long as no more goes to the host.
    place = next(i for i, nodes in enumerate(long) if len(nodes) == len(long[-1]))
    limits = _limits(names, by_room[place], ever - long[place])
    graph = dataclasses.replace(graph, limits=limits)
    if not long[place] and not floats:
        return graph
    return _Cut(graph, names, long[place], floats).apply()


def _names(graph: Graph) -> _Names:
    placeholders = graph.module.graph.find_nodes(op="placeholder")
    first = len(placeholders) - len(graph.columns)
    inputs = (*graph.trained, *graph.frozen, *graph.buffers)
    return _Names(
        dict(zip(placeholders[:first], inputs, strict=True)),
        dict(zip(placeholders[first:], graph.columns, strict=True)),
    )


def _range(values: Tensor) -> Interval:
    if not values.numel():
        return 0, 0
    least, largest = torch.aminmax(values.detach().to(torch.int64))
    return int(least), int(largest)


def _held(graph: Graph, names: _Names, state: Mapping[str, Tensor]) -> dict[fx.Node, Interval]:
    """Return bounds of buffers, with room to grow, and of constants."""
    found: dict[fx.Node, Interval] = {}
    for node, name in names.state.items():
        if is_integer(node.meta.get("val")):
            room = 2**16 if name in graph.updated else 2**4
            found[node] = _roomy(_range(state[name]), room, 2**30)
    for node in graph.module.graph.find_nodes(op="get_attr"):
        value = graph.constants[node.target]
        if is_integer(value):
            found[node] = _range(value)
    return found


def _made_of_floats(
    graph: Graph, names: _Names, nodes: Collection[fx.Node], columns: Mapping[str, Tensor]
) -> dict[fx.Node, Interval]:
    """Return bounds of the integers among `nodes`, which columns decide: their values, with room.

    Later ones are looked at when the host hands them to the device.
    """
    wanted = [node for node in nodes if is_integer(node.meta.get("val"))]
    part, _, inputs = _part(graph, names, wanted)
    with torch.no_grad():
        values = part(*(columns[name].detach().cpu() for name in inputs)) if wanted else []
    found: dict[fx.Node, Interval] = {}
    for node, value in zip(wanted, values, strict=True):
        bound = _range(torch.as_tensor(value))
        inside = INT32[0] <= bound[0] and bound[1] <= INT32[1]
        found[node] = _roomy(bound, 2**4) if inside else INT64
    return found


def _part(
    graph: Graph, names: _Names, wanted: Collection[fx.Node]
) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node], tuple[str, ...]]:
    """Return what computes some nodes of columns alone, the copies in it, and which columns."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    behind = _before(*wanted)
    inputs = []
    for node in graph.module.graph.nodes:
        if node in behind:
            copies[node] = part.node_copy(node, copies.__getitem__)
            if node in names.columns:
                inputs.append(names.columns[node])
    part.output([copies[node] for node in wanted])
    targets = {node.target for node in part.find_nodes(op="get_attr")}
    root = {name: value for name, value in graph.constants.items() if name in targets}
    return fx.GraphModule(root, part), copies, tuple(inputs)


def _roomy(bound: Interval, room: int, most: int = INT32[1]) -> Interval:
    largest = max(abs(bound[0]), abs(bound[1]), 1)
    size = max(min(largest * room, most), largest)
    return -size, size


def _of_room(
    graph: Graph, held: Mapping[fx.Node, Interval], seen: Mapping[fx.Node, Interval], room: int
) -> _Bounds:
    given = {node: _of_column(node, bound, room) for node, bound in seen.items()}
    return intervals(graph.module.graph, {**held, **given})


def _of_column(node: fx.Node, bound: Interval, room: int) -> Interval:
    """Return what a column may hold: of 32 and 64 bits, what the first batch did, times `room`."""
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


def _limits(names: _Names, bounds: _Bounds, tight: set[fx.Node]) -> tuple[Limit, ...]:
    """Return between which bounds columns have to lie so that none of `tight` leaves 32 bits."""
    behind: set[fx.Node] = set()
    pending = list(tight)
    while pending:
        node = pending.pop()
        if node not in behind and any(map(is_integer, pytree.tree_leaves(node.meta.get("val")))):
            behind.add(node)
            pending += node.all_input_nodes
    found = []
    for node, name in names.columns.items():
        bound = bounds[node][0] if node in behind else None
        if bound is not None and bound != INT64 and node.meta["val"].dtype in _CHECKED:
            found.append(Limit(name, *bound))
    return tuple(found)


def _inexact_on_device(graph: Graph, names: _Names) -> set[fx.Node]:
    """Return what the batch decides by floats of which the device would make something else.

    In float64, columns and constants hold times in seconds, of which float32 knows two minutes;
    what hands them on or converts them to a float is left to the device. Integers made of floats
    end at 2^31 there.
    """
    found: set[fx.Node] = set()
    for node in graph.module.graph.nodes:
        sources = node.all_input_nodes
        if node.op != "call_function":
            continue
        casts = name_of(node) in _CASTS
        to_integer = is_integer(node.meta.get("val"))
        if casts and to_integer and any(map(_is_float, sources)):
            if node.meta["val"].dtype == torch.int64 and _decided(node, names, by_columns=True):
                found.add(node)
        elif any(map(_is_double, sources)):
            computes = name_of(node) not in MOVES and not casts
            again = any(source in found for source in sources)
            if (computes or again) and _decided(node, names):
                found.add(node)
    return found


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _is_double(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float64


def _decided(node: fx.Node, names: _Names, *, by_columns: bool = False) -> bool:
    """Tell whether columns and constants alone decide about a node; or columns at least."""
    behind = _before(node)
    if any(source in names.state or is_random(source) for source in behind):
        return False
    return not by_columns or any(source in names.columns for source in behind)


class _Cut:
    """A graph that is parted into what the host computes and what the device does."""

    def __init__(
        self, graph: Graph, names: _Names, long: set[fx.Node], floats: set[fx.Node]
    ) -> None:
        self._graph = graph
        self._names = names
        self._long = long
        self._free = self._found_free()
        self._on_host = floats | long
        self._converted: dict[tuple[fx.Node, fx.Node], torch.dtype] = {}
        for node in graph.module.graph.nodes:
            self._follow(node)
        self._handed = [node for node in graph.module.graph.nodes if self._is_handed(node)]

    def _found_free(self) -> set[fx.Node]:
        """Return what columns and constants decide alone."""
        free: set[fx.Node] = set()
        for node in self._graph.module.graph.nodes:
            given = node in self._names.columns or node.op == "get_attr"
            call = node.op == "call_function" and not is_random(node)
            if given or (call and all(source in free for source in node.all_input_nodes)):
                free.add(node)
        return free

    def _follow(self, node: fx.Node) -> None:
        """Decide whether a node is the host's: what takes a long integer, or a list of results."""
        sources = [s for s in node.all_input_nodes if s in self._long or self._is_list(s)]
        if node.op == "output":
            for source in sources:
                if source in self._long:
                    raise TraceError(
                        f"forward returns {self._said(source)}. Compute it in prepare_batch, or "
                        "return it as a list in collate, which keeps it on the host."
                    )
            return
        if node in self._long and node not in self._free:
            raise TraceError(f"forward makes {self._said(node)}{_WAYS_OUT}")
        if not sources:
            return
        if node in self._free:
            self._on_host.add(node)
            return
        for source in sources:
            dtype = _float_of(node)
            if source not in self._long or dtype is None:
                raise TraceError(
                    f"forward calls {node.target}{_at(node)} with {self._said(source)}{_WAYS_OUT}"
                )
            self._converted[source, node] = dtype

    def _said(self, node: fx.Node) -> str:
        """Describe an integer that is too long."""
        if node in self._names.columns:
            return (
                f"the column {self._names.columns[node]!r}, whose integers leave the 32 bits of "
                "the device"
            )
        return f"an integer{_at(node)} ({name_of(node)}) that may leave 32 bits, as the device has"

    def _is_list(self, node: fx.Node) -> bool:
        return node in self._on_host and isinstance(node.meta.get("val"), tuple | list)

    def _is_handed(self, node: fx.Node) -> bool:
        """Tell whether the device needs what the host has computed."""
        if node not in self._on_host or node in self._long or self._is_list(node):
            return False
        return any(user not in self._on_host for user in node.users)

    def apply(self) -> Graph:
        """Return the graph with its host part."""
        host, inputs, names, traced = self._host()
        module, columns = self._device(names, traced)
        targets = {node.target for node in module.graph.find_nodes(op="get_attr")}
        device = dataclasses.replace(
            self._graph,
            module=module,
            columns=columns,
            constants={k: v for k, v in self._graph.constants.items() if k in targets},
            host_part=None,
        )
        part = HostPart(host, inputs, tuple(names.values()), device)
        return dataclasses.replace(self._graph, host_part=part)

    def _host(
        self,
    ) -> tuple[fx.GraphModule, tuple[str, ...], dict[Any, str], dict[Any, Any]]:
        sources = [*self._handed, *dict.fromkeys(source for source, _ in self._converted)]
        module, copies, inputs = _part(self._graph, self._names, sources)
        graph = module.graph
        graph.erase_node(graph.output_node())
        returned: list[fx.Node] = []
        names: dict[Any, str] = {}
        traced: dict[Any, Any] = {}
        for node in self._handed:
            returned.append(copies[node])
            names[node] = _name(node, len(names))
            traced[node] = node.meta["val"]
        for (source, user), dtype in self._converted.items():
            value = source.meta["val"]
            made = (
                graph.call_function(prims.convert_element_type.default, (copies[source], dtype))
                if isinstance(value, Tensor)
                else graph.call_function(
                    aten.scalar_tensor.default, (copies[source],), {"dtype": dtype}
                )
            )
            returned.append(made)
            names[source, user] = _name(source, len(names))
            shape = value.shape if isinstance(value, Tensor) else ()
            traced[source, user] = torch.empty(shape, dtype=dtype, device="meta")
        graph.output(returned)
        module.recompile()
        return module, inputs, names, traced

    def _device(
        self, names: Mapping[Any, str], traced: Mapping[Any, Any]
    ) -> tuple[fx.GraphModule, tuple[str, ...]]:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        recorded = self._graph.module.graph
        needed = self._needed()
        columns = []
        for node in recorded.find_nodes(op="placeholder"):
            if node in self._names.state or node in needed:
                copies[node] = graph.node_copy(node)
                if node in self._names.columns:
                    columns.append(self._names.columns[node])
        added: dict[Any, fx.Node] = {}
        for number, key in enumerate(names):
            added[key] = graph.placeholder(f"from_host_{number}")
            value = traced[key]
            added[key].meta["val"] = (
                value
                if isinstance(value, Tensor)
                else torch.empty((), dtype=torch.int64, device="meta")
            )
            if key in self._handed:
                copies[key] = added[key]
        for node in recorded.nodes:
            if node.op in ("placeholder", "output") or node not in needed or node in copies:
                continue
            own = {s: added[s, node] for s in node.all_input_nodes if (s, node) in added}
            sources = {**copies, **own} if own else copies
            copies[node] = graph.node_copy(node, sources.__getitem__)
        results: Any = recorded.output_node().args[0]
        graph.output([copies[node] for node in results])
        return fx.GraphModule(self._graph.module, graph), (*columns, *names.values())

    def _needed(self) -> set[fx.Node]:
        """Return what the device computes, or takes as an input."""
        found: set[fx.Node] = set()
        pending = list(self._graph.module.graph.output_node().all_input_nodes)
        handed = set(self._handed)
        while pending:
            node = pending.pop()
            if node in found:
                continue
            found.add(node)
            if node not in handed:
                pending += [s for s in node.all_input_nodes if (s, node) not in self._converted]
        return found


def _before(*nodes: fx.Node) -> set[fx.Node]:
    found: set[fx.Node] = set()
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found


def _float_of(node: fx.Node) -> torch.dtype | None:
    """Return the float in which a node computes with an integer, None if it does not."""
    if name_of(node) not in _CONVERTED:
        return None
    kinds = [
        value.meta["val"].dtype
        for value in node.all_input_nodes
        if isinstance(value.meta.get("val"), Tensor)
    ]
    floats = [kind for kind in kinds if kind.is_floating_point]
    return floats[0] if floats else None


def _at(node: fx.Node) -> str:
    return at(line_of_stack(node.stack_trace))


def _name(node: fx.Node, number: int) -> str:
    return f"{name_of(node) or node.name} ({number}){_at(node)}"
