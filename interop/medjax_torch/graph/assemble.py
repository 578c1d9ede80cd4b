"""Build a graph and its guards from a functional recording."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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
    recorded, sources = recording.module, recording.sources
    results: list[fx.Node] = list(recorded.graph.output_node().args[0])  # type: ignore
    inputs = dict(zip(recorded.graph.find_nodes(op="placeholder"), joint.arguments(), strict=True))
    state = dict(zip(joint.state, inputs, strict=False))
    fixed = 1 + len(joint.gradients) + len(joint.outputs.names)
    after = dict(zip(joint.state, results[fixed:], strict=False))
    # A tensor that forward did not change is returned as the input node itself.
    changed = {name: node for name, node in after.items() if node is not state[name]}
    looked = results[fixed + len(after) :]
    watched, checked = looked[: len(sources)], looked[len(sources) :]

    first = 1 + len(joint.gradients)
    varying = _varying(dict(zip(joint.outputs.names, results[first:fixed], strict=True)))
    lengths = _lengths(recorded.graph, varying)
    returned = [*results[:fixed], *changed.values(), *checked, *lengths]
    used = ancestry(*returned, *watched) & inputs.keys()
    _check_reshaped(joint, [name for name, node in state.items() if node in used])
    guard_module = (
        fx.GraphModule(recorded, _part(recorded.graph, watched, used)) if watched else None
    )
    with torch.no_grad():
        values = (
            guard_module(*(inputs[node] for node in inputs if node in used)) if guard_module else []
        )

    present = {name for name, node in state.items() if node in used}
    columns = list(inputs)[len(state) :]
    part = _part(recorded.graph, returned, used)
    recompute(part)
    module = fx.GraphModule(recorded, part)
    used_columns = tuple(n for n, node in zip(joint.columns, columns, strict=True) if node in used)
    return Graph(
        module=module,
        trained=tuple(name for name in joint.trained if name in present),
        frozen=tuple(name for name in joint.frozen if name in present),
        buffers=tuple(name for name in joint.buffers if name in present),
        columns=used_columns,
        gradients=joint.gradients,
        droppable=joint.droppable,
        outputs=joint.outputs,
        updated=tuple(changed),
        constants=_constants(module, guard_module),
        guards=tuple(
            Guard(value.item(), source.line, source.what)
            for source, value in zip(sources, values, strict=True)
        ),
        guard_module=guard_module,
        conditions=tuple(recording.conditions),
        left_out=recording.left_out,
        reported=recording.reported,
        effects=joint.effects,
        train=joint.train,
        seconds=seconds,
        numbers=tuple(number for number in joint.numbers if number.name in used_columns),
        places=tuple(joint.attributes.places),
        counters=joint.counters,
        varying=tuple((name, dim) for name, dim, _ in varying),
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
        if name in used:
            raise TraceError(
                f"forward replaces {name} with a tensor of another shape or dtype and also reads "
                "the old one. State must keep its shape and dtype from step to step."
            )
