"""Rewrite each distinct operation of a graph once, however often the graph repeats it.

The layers of an encoder repeat the same operations on tensors of the same shapes. `functionalize`
spends its time in torch's dispatcher, so it rewrites a smaller graph, with one node for each
distinct operation, and what each of these becomes then replaces all its repetitions.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.torch_internals import (
    FakeTensor,
    OpOverload,
    count_owners,
    disable_torch_function,
)

Rewrite = Callable[[fx.GraphModule, Sequence[Tensor]], fx.GraphModule]
"""Records a graph again, on fake tensors."""

_ROUNDS = 6
"""How often operations are rewritten for other strides of their operands before giving up."""

_WORTHWHILE = 200
"""How many operations must be repetitions of others: fewer are recorded again sooner than these."""

_LIFTED = (torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default)
"""What torch records for a tensor that forward makes of Python's numbers."""

_GIVEN = ("placeholder", "get_attr")
"""What the tensors are that no operation computes."""


class RepetitionError(Exception):
    """A graph's operations cannot be rewritten one by one."""


class _Operation(NamedTuple):
    """An operation of the graph.

    Attributes
    ----------
    node : fx.Node
        The operation.
    operands : list of fx.Node
        The tensors that it takes.
    what : hashable
        Its operator and its other arguments; equal for operations that differ in tensors only.
    overwritten : list of fx.Node
        The nodes that stand for the tensor it writes to, if it writes to one.
    """

    node: fx.Node
    operands: list[fx.Node]
    what: Hashable
    overwritten: list[fx.Node]


class _Applied(NamedTuple):
    """An operation and the fake tensors that it takes."""

    operation: _Operation
    operands: list[Tensor]


class _Part(NamedTuple):
    """What an operation became.

    Attributes
    ----------
    inputs, nodes : list of fx.Node
        What stands for its operands, and the operations on them.
    result : Any
        The nodes that are its result, in a tuple if there are several.
    value : Any
        Their fake tensors.
    """

    inputs: list[fx.Node]
    nodes: list[fx.Node]
    result: Any
    value: Any


def rewrite_each_once(module: fx.GraphModule, rewrite: Rewrite) -> fx.GraphModule:
    """Return the graph that `rewrite` would record, from its records of single operations.

    Two operations are the same if they have the same operator, the same arguments other than
    tensors, and tensors of the same dtype, shape and strides.

    Parameters
    ----------
    module : fx.GraphModule
        A graph recorded on fake tensors.
    rewrite : callable
        Records a graph again, and passes the nodes' ``meta["stack_trace"]`` on.

    Raises
    ------
    RepetitionError
        If few operations are repetitions; if the graph writes to a part of a tensor or to an input,
        or has sizes that depend on values; or if an operation becomes more than operations on its
        own operands.
    """
    graph = module.graph
    with disable_torch_function():
        operations = _operations(graph)
    parts: dict[Hashable, _Part] = {}
    # What an operation becomes may have other strides, which makes others of those that take it.
    for _ in range(_ROUNDS):
        with disable_torch_function():
            keys, missing = _described(graph, operations, parts)
        if not missing:
            steps = {node: parts[key] for node, key in keys.items()}
            return _assembled(module, operations, steps)
        if len(keys) - len(missing) < _WORTHWHILE:
            break
        parts |= zip(missing, _rewritten(list(missing.values()), rewrite), strict=True)
    raise RepetitionError


def _operations(graph: fx.Graph) -> dict[fx.Node, _Operation]:
    in_memory: defaultdict[int, list[fx.Node]] = defaultdict(list)
    operations = {}
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and value.layout is torch.strided:
            in_memory[count_owners(value)[0]].append(node)
        if node.op in _GIVEN or node.op == "output" or _is_taken(node):
            continue
        if not isinstance(node.target, OpOverload) or not isinstance(value, Tensor | tuple | list):
            raise RepetitionError
        operands = node.all_input_nodes
        places = {each: place for place, each in enumerate(operands)}
        what = node.target, _hashable(node.args, places), _hashable(node.kwargs, places)
        writes = node.target._schema.is_mutable
        overwritten = _written_by(node, in_memory) if writes else []
        operations[node] = _Operation(node, operands, what, overwritten)
    return operations


def _is_taken(node: fx.Node) -> bool:
    """Return whether a node computes nothing, but takes a value, or a part of several."""
    return node.target in (operator.getitem, *_LIFTED)


def _taken(node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    value = values[node.args[0]]  # type: ignore[index]
    return value[node.args[1]] if node.target is operator.getitem else value


def _written_by(node: fx.Node, in_memory: Mapping[int, list[fx.Node]]) -> list[fx.Node]:
    first, *others = node.target._schema.arguments  # type: ignore[union-attr]
    if any(map(_is_written, others)) or not _is_written(first):
        raise RepetitionError
    kind = _kind(node.meta["val"])
    same = in_memory[count_owners(node.args[0].meta["val"])[0]]  # type: ignore[union-attr]
    whole = all(each.op not in _GIVEN and _kind(each.meta["val"]) == kind for each in same)
    if not whole or same[-1] is not node:
        raise RepetitionError
    return same[:-1]


def _is_written(argument: Any) -> bool:
    return argument.alias_info is not None and argument.alias_info.is_write


def _hashable(argument: Any, places: Mapping[fx.Node, int]) -> Hashable:
    if isinstance(argument, fx.Node):
        return "operand", places[argument]
    if isinstance(argument, list | tuple):
        return "several", tuple(_hashable(each, places) for each in argument)
    if isinstance(argument, dict):
        return "named", tuple((name, _hashable(each, places)) for name, each in argument.items())
    if isinstance(argument, float | complex):
        return repr(argument)  # which tells 0.0 from -0.0
    return type(argument), argument


def _described(
    graph: fx.Graph,
    operations: Mapping[fx.Node, _Operation],
    parts: Mapping[Hashable, _Part],
) -> tuple[dict[fx.Node, Hashable], dict[Hashable, _Applied]]:
    """Return what each node applies to what, and which of these are not among `parts`.

    The strides of an operand are those that it has after rewriting; while what it becomes is
    unknown, they are taken from the recording.
    """
    values: dict[fx.Node, Any] = {}
    keys: dict[fx.Node, Hashable] = {}
    missing: dict[Hashable, _Applied] = {}
    kinds: dict[int, Hashable] = {}

    def kind_of(node: fx.Node) -> Hashable:
        value = values[node]  # many nodes share one, and torch takes long to describe it
        if id(value) not in kinds:
            kinds[id(value)] = _kind(value)
        return kinds[id(value)]

    for node in graph.nodes:
        if node.op in _GIVEN:
            values[node] = node.meta["val"]
        elif _is_taken(node):
            values[node] = _taken(node, values)
        elif node.op == "call_function":
            operation = operations[node]
            key = operation.what, *map(kind_of, operation.operands)
            keys[node] = key
            if key in parts:
                values[node] = parts[key].value
            else:
                values[node] = node.meta["val"]
                operands = [values[each] for each in operation.operands]
                missing.setdefault(key, _Applied(operation, operands))
            values |= dict.fromkeys(operation.overwritten, values[node])
    return keys, missing


def _kind(value: Any) -> tuple[Hashable, ...]:
    if not isinstance(value, Tensor):
        raise RepetitionError
    memory = value.stride(), value.storage_offset(), value.is_conj(), value.is_neg()
    return value.dtype, value.device, value.shape, *memory


def _rewritten(applied: Sequence[_Applied], rewrite: Rewrite) -> list[_Part]:
    """Return what each of several operations becomes, on inputs of its own."""
    small = fx.Graph()
    examples: list[Tensor] = []
    places: dict[Hashable, fx.Node] = {}
    inputs: list[list[fx.Node]] = []
    for operation, operands in applied:
        inputs.append([])
        for place, operand in enumerate(operands):
            # What an operation writes to is an input of no other.
            key = (_kind(operand), place, operation.node if operation.overwritten else None)
            if key not in places:
                places[key] = small.placeholder(f"input_{len(places)}")
                # The tracer tells its inputs apart as objects.
                examples.append(operand.detach())
            inputs[-1].append(places[key])
    results = []
    for number, ((operation, _), own) in enumerate(zip(applied, inputs, strict=True)):
        stand_ins = dict(zip(operation.operands, own, strict=True))
        results.append(small.node_copy(operation.node, stand_ins.__getitem__))
        results[-1].meta = {"stack_trace": str(number)}  # passed on to all that it becomes
    small.output(results)

    became = rewrite(fx.GraphModule({}, small), examples).graph
    now = dict(zip(places.values(), became.find_nodes(op="placeholder"), strict=True))
    nodes: list[list[fx.Node]] = [[] for _ in applied]
    for node in became.nodes:
        mark = node.meta.get("stack_trace", "")
        if node.op == "call_function" and mark.isdecimal():
            nodes[int(mark)].append(node)
    outputs: Any = became.output_node().args[0]
    return [
        _Part([now[each] for each in own], made, result, fx.map_arg(result, _value))
        for own, made, result in zip(inputs, nodes, outputs, strict=True)
    ]


def _value(node: fx.Node) -> Any:
    return node.meta["val"]


def _assembled(
    module: fx.GraphModule,
    operations: Mapping[fx.Node, _Operation],
    parts: Mapping[fx.Node, _Part],
) -> fx.GraphModule:
    """Return a graph with each operation replaced by what it became."""
    graph = module.graph
    whole = fx.Graph()
    values: dict[fx.Node, Any] = {}
    for node in graph.nodes:
        if node.op in _GIVEN:
            values[node] = whole.node_copy(node)
        elif node.op == "output":
            whole.output(fx.map_arg(node.args[0], values.__getitem__))
        elif _is_taken(node):
            values[node] = _taken(node, values)
        else:
            operation, part = operations[node], parts[node]
            operands = [values[each] for each in operation.operands]
            known = dict(zip(part.inputs, operands, strict=True))
            # torch would pass these on, too.
            own = {key: node.meta[key] for key in ("stack_trace", "custom") if key in node.meta}
            try:
                for each in part.nodes:
                    known[each] = whole.node_copy(each, known.__getitem__)
                    known[each].meta = {**each.meta, "stack_trace": None, **own}
                values[node] = fx.map_arg(part.result, known.__getitem__)
            except KeyError:
                raise RepetitionError from None
            values |= dict.fromkeys(operation.overwritten, values[node])
    return fx.GraphModule(module, whole)
