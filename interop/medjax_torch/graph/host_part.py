"""Split a graph into what torch computes on the host and what the device computes."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import TraceError, at, line_of_stack
from medjax_torch.graph.graph import Graph, HostPart
from medjax_torch.graph.guards import ancestry, is_random
from medjax_torch.graph.operations import name_of

aten = torch.ops.aten
prims = torch.ops.prims

_CONVERTED = frozenset(
    ["add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "pow", "where", "true_divide"]
)
"""Operations on an integer and a float that give the same if the integer is converted first."""

_WAYS_OUT = (
    ", in combination with parameters, buffers or random numbers, so the host cannot compute it "
    "before the step. Compute with floats there, or separate the part that depends only on the "
    "batch."
)


class Names(NamedTuple):
    """The names of a graph's inputs, by node."""

    state: dict[fx.Node, str]
    columns: dict[fx.Node, str]


def part_of(
    graph: Graph, names: Names, wanted: Collection[fx.Node]
) -> tuple[fx.GraphModule, dict[fx.Node, fx.Node], tuple[str, ...]]:
    """Return a module that computes nodes from columns alone, its node copies, and its columns."""
    part = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    behind = ancestry(*wanted)
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


class Cut:
    """A graph that is split into what the host computes and what the device computes."""

    def __init__(
        self, graph: Graph, names: Names, long: set[fx.Node], floats: set[fx.Node]
    ) -> None:
        self._graph = graph
        self._names = names
        self._long = long
        self._free = self._free_results()
        self._on_host = floats | long
        self._converted: dict[tuple[fx.Node, fx.Node], torch.dtype] = {}
        for node in graph.module.graph.nodes:
            self._follow(node)
        self._handed = [node for node in graph.module.graph.nodes if self._is_handed(node)]

    def _free_results(self) -> set[fx.Node]:
        """Return the nodes that depend only on columns and constants."""
        free: set[fx.Node] = set()
        for node in self._graph.module.graph.nodes:
            is_input = node in self._names.columns or node.op == "get_attr"
            call = node.op == "call_function" and not is_random(node)
            if is_input or (call and all(source in free for source in node.all_input_nodes)):
                free.add(node)
        return free

    def _follow(self, node: fx.Node) -> None:
        """Assign a node to the host if it takes a long integer or the host's list of results."""
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
            raise TraceError(f"forward computes {self._said(node)}{_WAYS_OUT}")
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
        """Describe an integer that is too long for the device."""
        if node in self._names.columns:
            return (
                f"the column {self._names.columns[node]!r}, whose integers exceed the device's 32 "
                "bits"
            )
        return f"an integer{_at(node)} ({name_of(node)}) that may exceed the device's 32 bits"

    def _is_list(self, node: fx.Node) -> bool:
        return node in self._on_host and isinstance(node.meta.get("val"), tuple | list)

    def _is_handed(self, node: fx.Node) -> bool:
        """Return whether the device needs the result that the host computes for a node."""
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
        module, copies, inputs = part_of(self._graph, self._names, sources)
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
        """Return the nodes that the device computes or takes as inputs."""
        needed: set[fx.Node] = set()
        pending = list(self._graph.module.graph.output_node().all_input_nodes)
        handed = set(self._handed)
        while pending:
            node = pending.pop()
            if node in needed:
                continue
            needed.add(node)
            if node not in handed:
                pending += [s for s in node.all_input_nodes if (s, node) not in self._converted]
        return needed


def _float_of(node: fx.Node) -> torch.dtype | None:
    """Return the float dtype to which a node converts an integer, None if it converts none."""
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
