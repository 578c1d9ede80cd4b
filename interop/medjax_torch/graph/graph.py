"""A component's forward and backward as one pure graph."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from medjax_torch.component_state.locations import Effect
from medjax_torch.component_state.watch.places import Place
from medjax_torch.graph.batch_columns import columns
from medjax_torch.graph.conditions import Condition
from medjax_torch.graph.guards import Guard, is_random
from medjax_torch.graph.numbers import Number, tensors_of
from medjax_torch.graph.outputs import OutputSpec


@dataclass(frozen=True)
class Results:
    """The results of a graph, by name.

    Attributes
    ----------
    loss : array
        The scalar loss.
    gradients : dict of str to array
        Gradients of the trained parameters that the loss depends on; torch has None for the others.
    outputs : sequence of array
        The tensors of forward's outputs, for `OutputSpec.rebuild`.
    updated : dict of str to array
        The new values of the parameters and buffers that forward changed.
    sizes : sequence of array
        The sizes of the outputs along the dimensions in `Graph.varying`.
    checked : sequence of array
        The truth values that `Graph.conditions` refer to.
    """

    loss: Any
    gradients: dict[str, Any]
    outputs: Sequence[Any]
    updated: dict[str, Any]
    checked: Sequence[Any] = ()
    sizes: Sequence[Any] = ()


class Limit(NamedTuple):
    """The bounds of a column within which everything computed from it fits into 32 bits."""

    column: str
    low: int
    high: int

    def holds(self, values: Tensor) -> bool:
        """Return whether all values lie within the bounds."""
        if not values.numel():
            return True
        least, largest = torch.aminmax(values)
        return self.low <= int(least) and int(largest) <= self.high


@dataclass(frozen=True)
class HostPart:
    """The part of a graph that torch computes on the host, in 64 bits; see `long_integers`.

    Attributes
    ----------
    module : fx.GraphModule
        Takes the columns in `inputs` and returns a list of the columns in `names`.
    inputs, names : tuple of str
        Columns of the batch, and the additional columns that are computed from them.
    device : Graph
        The rest of the graph, with the additional columns among its own.
    """

    module: fx.GraphModule
    inputs: tuple[str, ...]
    names: tuple[str, ...]
    device: Graph


@dataclass(frozen=True)
class Graph:
    """Forward and torch's own backward, without mutation, views or Python.

    Attributes
    ----------
    module : fx.GraphModule
        Takes `inputs(...)` and returns a list for `results(...)`. Its operations are core aten.
    trained, frozen, buffers, columns : tuple of str
        Names of the inputs, in this order: parameters with and without gradient, buffers, tensors
        of the batch. Those that the graph does not use are left out.
    gradients : tuple of str
        The trained parameters that have a gradient. The others have None in torch, so the
        optimizer must skip them.
    droppable : tuple of str
        Those of `gradients` that belong to layers that are left out at random. A mark distinguishes
        a gradient of 0 from no gradient; see `layer_drop`.
    outputs : OutputSpec
        The structure of forward's outputs.
    updated : tuple of str
        Parameters and buffers whose new values the graph returns.
    constants : dict of str to Tensor
        The values of the graph's `get_attr` nodes.
    guards : tuple of Guard
        The values that Python read: the graph is valid if all of these guards hold.
    guard_module : fx.GraphModule or None
        Takes the same inputs and returns a list of the values that the guards compare; None without
        guards.
    conditions : tuple of Condition
        Truth values that forward read and that depend on what changes in training. The graph
        returns them, and is not valid for a step in which one of them differs.
    left_out : dict of str to str
        Outputs of forward that the graph does not return, because they depend on a read value that
        changes in training, and the line that read it.
    reported : tuple of str
        Lines that read values on which nothing in the graph depends.
    effects : tuple of Effect
        What forward leaves in the component for its next run: a counter, a list of losses, a new
        tensor. Tracing undoes it; see `kept_up`.
    filled_in : tuple of Effect
        The strings and objects that forward left where there was nothing.
    reshaped : dict of str to Tensor
        Tensors of another shape or dtype by which forward replaces state, whose values it does not
        read. The state stays as it was.
    counters : tuple of str
        Paths of attributes with numbers and similar values that forward read and then changed.
    train : bool
        Whether forward ran in training mode, with gradients.
    seconds : float
        How long tracing took.
    numbers : tuple of Number
        The numbers among `columns`.
    modes : tuple of (nn.Module, bool)
        The modules of the component, and whether each is in training mode after forward.
    places : tuple of Place
        The places from which forward read values that are constants of the graph.
    on_values : bool
        Whether it was recorded on the values of a batch, because Python reads some of them.
    exact : str
        Why sizes that depend on values are fixed in this graph, ``""`` if none are.
    varying : tuple of (str, int)
        Names and dimensions of outputs whose size depends on values. The graph returns them at
        their largest possible size; see `cut`.
    limits : tuple of Limit
        The limits that a batch must keep so that every integer fits into 32 bits.
    host_part : HostPart or None
        The part that torch has to compute on the host first, None if there is none.
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
    effects: tuple[Effect, ...]
    train: bool
    seconds: float
    droppable: tuple[str, ...] = ()
    numbers: tuple[Number, ...] = ()
    places: tuple[Place, ...] = ()
    filled_in: tuple[Effect, ...] = ()
    reshaped: Mapping[str, Tensor] = field(default_factory=dict)
    counters: tuple[str, ...] = ()
    modes: tuple[tuple[nn.Module, bool], ...] = ()
    on_values: bool = False
    exact: str = ""
    varying: tuple[tuple[str, int], ...] = ()
    limits: tuple[Limit, ...] = ()
    host_part: HostPart | None = None

    @property
    def inputs_named(self) -> tuple[str, ...]:
        """The names of the inputs, in order."""
        return (*self.trained, *self.frozen, *self.buffers, *self.columns)

    def tensors_of(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the tensors and numbers of a batch that the graph may use, by path."""
        return {**columns(batch), **tensors_of(batch, self.numbers)}

    @property
    def device(self) -> Graph:
        """The graph as the device runs it."""
        return self if self.host_part is None else self.host_part.device

    def completed(self, columns: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the columns of a batch together with those that the host computes from them."""
        part = self.host_part
        if part is None:
            return columns
        try:
            with torch.no_grad():
                made = part.module(*(columns[name].detach().cpu() for name in part.inputs))
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"{', '.join(part.names)} cannot be computed from the columns "
                f"{', '.join(map(repr, part.inputs))}: {error}"
            ) from error
        values = map(torch.as_tensor, made)
        return {**columns, **dict(zip(part.names, values, strict=True))}

    def fits(self, columns: Mapping[str, Tensor]) -> bool:
        """Return whether a batch keeps the limits."""
        return all(limit.holds(columns[limit.column]) for limit in self.limits)

    def inputs(self, state: Mapping[str, Any], columns: Mapping[str, Any]) -> list[Any]:
        """Return the graph's inputs in order.

        Parameters
        ----------
        state : mapping of str to array
            At least the parameters and buffers that the graph uses.
        columns : mapping of str to array
            The tensors of the batch by path, as `batch_columns.columns` names them.
        """
        names = (*self.trained, *self.frozen, *self.buffers)
        return [state[name] for name in names] + [columns[name] for name in self.columns]

    def results(self, values: Sequence[Any]) -> Results:
        """Return the list of values that the graph returned as named results."""
        first = 1 + len(self.gradients)
        last = first + len(self.outputs.names)
        end = last + len(self.updated)
        checked = end + len(self.conditions)
        return Results(
            loss=values[0],
            gradients=dict(zip(self.gradients, values[1:first], strict=True)),
            outputs=values[first:last],
            updated=dict(zip(self.updated, values[last:end], strict=True)),
            checked=values[end:checked],
            sizes=values[checked:],
        )

    def output_dtypes(self) -> dict[str, torch.dtype]:
        """Return torch's dtype of each output by name."""
        values: Any = self.module.graph.output_node().args[0]
        nodes = self.results(values).outputs
        return {
            name: node.meta["val"].dtype
            for name, node in zip(self.outputs.names, nodes, strict=True)
        }

    def cut(self, outputs: Mapping[str, Any], sizes: Sequence[Any]) -> dict[str, Any]:
        """Return outputs (arrays or tensors by name), cut to their sizes."""
        cut = dict(outputs)
        for (name, dim), size in zip(self.varying, sizes, strict=True):
            cut[name] = cut[name][(slice(None),) * dim + (slice(int(size)),)]
        return cut

    def holds(self, values: Sequence[bool | int | float]) -> bool:
        """Return whether the graph is valid if `guard_module` returned `values`."""
        return all(guard.holds(v) for guard, v in zip(self.guards, values, strict=True))

    @functools.cached_property
    def draws(self) -> bool:
        """Whether the device draws random numbers."""
        return any(map(is_random, self.device.module.graph.nodes))

    @property
    def operations(self) -> tuple[str, ...]:
        """The names of the distinct operations, sorted."""
        calls = (node.target for node in self.module.graph.nodes if node.op == "call_function")
        return tuple(sorted({str(target) for target in calls if target is not operator.getitem}))


def same(first: Graph, second: Graph) -> bool:
    """Return whether two graphs compute the same from the same inputs, in the same operations.

    The names of operations and constants do not count: they tell what else was recorded, such as
    a number that forward only printed.
    """
    return (
        first.limits == second.limits
        and _names_of(first.host_part) == _names_of(second.host_part)
        and first.inputs_named == second.inputs_named
        and (first.gradients, first.updated, first.guards, first.conditions)
        == (second.gradients, second.updated, second.guards, second.conditions)
        and first.outputs == second.outputs
        and len(first.module.graph.nodes) == len(second.module.graph.nodes)
        and all(map(operator.eq, _form(first.module), _form(second.module)))
        and _equal(_constants(first), _constants(second))
    )


def _names_of(part: HostPart | None) -> tuple[str, ...]:
    return () if part is None else part.names


class _Position(int):
    """The position of a node, which no integer argument can be mistaken for."""

    def __repr__(self) -> str:
        return f"%{int(self)}"


def _form(module: fx.GraphModule) -> Iterator[tuple[Any, ...]]:
    """Yield what each node does, with positions in place of names."""
    positions: dict[fx.Node, Any] = {}
    for node in module.graph.nodes:
        arguments = map_arg((node.args, node.kwargs), positions.__getitem__)
        positions[node] = _Position(len(positions))
        yield node.op, node.target if node.op == "call_function" else "", repr(arguments)


def _constants(graph: Graph) -> list[Tensor]:
    """Return the constants in the order in which the graph and its guards use them."""
    modules = [graph.module] if graph.guard_module is None else [graph.module, graph.guard_module]
    nodes = [node for module in modules for node in module.graph.find_nodes(op="get_attr")]
    return [graph.constants[node.target] for node in nodes]


def _equal(first: Sequence[Tensor], second: Sequence[Tensor]) -> bool:
    return len(first) == len(second) and all(
        one.dtype == other.dtype and torch.equal(one, other)
        for one, other in zip(first, second, strict=True)
    )
