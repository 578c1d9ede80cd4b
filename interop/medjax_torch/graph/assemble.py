"""Build a graph and its guards from a functional recording."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.guards import Guard, ancestry
from medjax_torch.graph.influence import Recording
from medjax_torch.graph.joint import Joint
from medjax_torch.graph.recompute import recompute
from medjax_torch.graph.sizes import lengths


def assemble(joint: Joint, recording: Recording, seconds: float) -> Graph:
    """Split a recording into a graph and its guards, without the inputs that neither uses.

    Parameters
    ----------
    joint : Joint
        The recorded function.
    recording : Recording
        A recording without mutation. It returns the joint's results, then the compared values.
    seconds : float
        How long the recording took.
    """
    parts = _Parts.of(joint, recording)
    varying = _varying(parts.outputs)
    lengths = _lengths(recording.module.graph, varying)
    returned = [*parts.results, *parts.changed.values(), *parts.checked, *lengths]
    used = ancestry(*returned, *parts.watched) & parts.inputs.keys()
    present = {name for name, node in parts.state.items() if node in used}
    _check_reshaped(joint, present)
    guard_module = None
    if parts.watched:
        part = _part(recording.module.graph, parts.watched, used)
        guard_module = fx.GraphModule(recording.module, part)
    part = _part(recording.module.graph, returned, used)
    recompute(part)
    module = fx.GraphModule(recording.module, part)
    used_inputs = [value for node, value in parts.inputs.items() if node in used]
    columns = tuple(name for name, node in parts.columns.items() if node in used)
    return Graph(
        module=module,
        trained=tuple(name for name in joint.trained if name in present),
        frozen=tuple(name for name in joint.frozen if name in present),
        buffers=tuple(name for name in joint.buffers if name in present),
        columns=columns,
        gradients=joint.gradients,
        droppable=joint.droppable,
        outputs=joint.outputs,
        updated=tuple(parts.changed),
        constants=_constants(module, guard_module),
        guards=_guards(recording, guard_module, used_inputs),
        guard_module=guard_module,
        conditions=tuple(recording.conditions),
        left_out=recording.left_out,
        reported=recording.reported,
        effects=joint.effects,
        filled_in=joint.filled_in,
        reshaped=joint.reshaped,
        train=joint.train,
        seconds=seconds,
        numbers=tuple(number for number in joint.numbers if number.name in columns),
        places=tuple(joint.attributes.places),
        counters=joint.counters,
        modes=joint.modes,
        varying=tuple((name, dim) for name, dim, _ in varying),
    )


class _Parts(NamedTuple):
    """The inputs and results of a recording, by what they are.

    Attributes
    ----------
    inputs : dict of node to Tensor
        The inputs, with their values.
    state, columns : dict of str to node
        The inputs by name.
    results : list of node
        The loss, the gradients and the outputs.
    outputs : dict of str to node
        The outputs among them.
    changed : dict of str to node
        The state that forward changed.
    watched, checked : list of node
        What guards and conditions compare.
    """

    inputs: dict[fx.Node, Tensor]
    state: dict[str, fx.Node]
    columns: dict[str, fx.Node]
    results: list[fx.Node]
    outputs: dict[str, fx.Node]
    changed: dict[str, fx.Node]
    watched: list[fx.Node]
    checked: list[fx.Node]

    @classmethod
    def of(cls, joint: Joint, recording: Recording) -> _Parts:
        graph = recording.module.graph
        returned: list[fx.Node] = list(graph.output_node().args[0])  # type: ignore
        inputs = dict(zip(graph.find_nodes(op="placeholder"), joint.arguments(), strict=True))
        nodes = list(inputs)
        state = dict(zip(joint.state, nodes, strict=False))
        first = 1 + len(joint.gradients)
        fixed = first + len(joint.outputs.names)
        after = dict(zip(joint.state, returned[fixed:], strict=False))
        compared = returned[fixed + len(after) :]
        nb_watched = len(recording.sources)
        return cls(
            inputs=inputs,
            state=state,
            columns=dict(zip(joint.columns, nodes[len(state) :], strict=True)),
            results=returned[:fixed],
            outputs=dict(zip(joint.outputs.names, returned[first:fixed], strict=True)),
            # A tensor that forward did not change is returned as the input node itself.
            changed={name: node for name, node in after.items() if node is not state[name]},
            watched=compared[:nb_watched],
            checked=compared[nb_watched:],
        )


def _guards(
    recording: Recording, guard_module: fx.GraphModule | None, inputs: Sequence[Tensor]
) -> tuple[Guard, ...]:
    """Return the values that were compared while recording, which the graph expects."""
    if guard_module is None:
        return ()
    with torch.no_grad():
        values = guard_module(*inputs)
    return tuple(
        Guard(value.item(), source.line, source.what)
        for source, value in zip(recording.sources, values, strict=True)
    )


def _varying(outputs: Mapping[str, fx.Node]) -> list[tuple[str, int, fx.Node]]:
    """Return the output dimensions whose size depends on values."""
    return [
        (name, dim, node)
        for name, node in outputs.items()
        for dim, size in enumerate(lengths(node.meta["val"]))
        if not isinstance(size, int)
    ]


def _lengths(graph: fx.Graph, varying: Sequence[tuple[str, int, fx.Node]]) -> list[fx.Node]:
    """Add nodes that compute the sizes of these output dimensions, and return the nodes."""
    added = []
    with graph.inserting_before(graph.output_node()):
        for _, dim, node in varying:
            added.append(graph.call_function(torch.ops.aten.sym_size.int, (node, dim)))
            added[-1].meta["val"] = node.meta["val"].shape[dim]
    return added


def _part(recorded: fx.Graph, outputs: Sequence[fx.Node], inputs: Collection[fx.Node]) -> fx.Graph:
    """Return the part of a recording that computes `outputs` from `inputs`."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    wanted = ancestry(*outputs)
    for node in recorded.nodes:
        if node in inputs or (node in wanted and node.op != "placeholder"):
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([copies[node] for node in outputs])
    return graph


def _constants(*modules: fx.GraphModule | None) -> dict[str, Tensor]:
    """Return copies of the constants, because the component may write to the originals."""
    return {
        node.target: getattr(module, node.target).detach().clone()
        for module in modules
        if module is not None
        for node in module.graph.find_nodes(op="get_attr")
    }


def _check_reshaped(joint: Joint, used: Collection[str]) -> None:
    for name in joint.reshaped:
        # Forward sees the shape of a tensor without reading it, and of this one hardly more.
        if joint.inventory.tensors[name].numel() == 0:
            raise TraceError(
                f"forward replaces {name}, which has no elements, with a tensor of another shape: "
                "a graph would find it empty at every step. Give it its final shape before "
                "training, for example by running the model once in __init__; what forward only "
                "leaves in it can be an output instead."
            )
        if name in used:
            raise TraceError(
                f"forward replaces {name} with a tensor of another shape or dtype and also reads "
                "the old one. State must keep its shape and dtype from step to step."
            )
