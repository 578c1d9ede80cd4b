"""What is behind a difference between JAX and torch: a lowering, the recording, or rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.comparison import Difference, differences
from medjax_torch.graph import Graph
from medjax_torch.graph.batches import columns
from medjax_torch.graph.errors import at, line_of_stack
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.joint import Call
from medjax_torch.graph_in_torch import outcome_in_torch
from medjax_torch.lowering_check import wrong_lowerings
from medjax_torch.modules import Found
from medjax_torch.reference import Outcome, reference
from medjax_torch.rounding import explained

_SIDES = ("the graph", "torch")


class Finding(NamedTuple):
    """What a difference comes from.

    Attributes
    ----------
    wrong : list of Difference
        What is left of the differences once roundings are taken off.
    causes : list of str
        Sentences for the user, the most likely cause first.
    """

    wrong: list[Difference]
    causes: list[str]


def diagnose(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    graph: Graph,
    expected: Outcome,
    wrong: list[Difference],
    tolerance: float,
) -> Finding | None:
    """Find out why JAX and torch differ; None if rounding explains it and every lowering is right.

    The graph itself is run in torch. If forward gives something else, it is not what was recorded.
    If forward gives the same, each operation is run in JAX and in torch on the same arguments.

    Parameters
    ----------
    call, found, batch, graph
        As `verification.verify` has them.
    expected : Outcome
        Of torch, by `reference`.
    wrong : list of Difference
        The results in which JAX differs from it beyond the tolerance.
    tolerance : float
        The largest relative difference that needs no explanation.
    """
    try:
        recorded = outcome_in_torch(graph, found, batch)
        excused = explained(graph, found, batch, expected)
    except Exception as error:
        text = f"The graph cannot be run in torch to find out why ({type(error).__name__}: {error})"
        return Finding(wrong, [f"{text}; please report it."])
    unlike = [
        one
        for one in differences(recorded, expected, _SIDES, rounded_outputs(graph))
        if one.relative > max(tolerance, excused.get(one.name, 0.0))
    ]
    if unlike:
        named = {one.name for one in unlike}
        causes = _not_recorded(call, found, batch, graph, recorded, expected)
        return Finding([one for one in wrong if one.name in named] or unlike, causes)
    lowerings = wrong_lowerings(graph, found, batch, _behind(graph, wrong))
    if lowerings:
        return Finding(wrong, lowerings)
    left = [one for one in wrong if one.relative > excused.get(one.name, 0.0)]
    if left:
        return Finding(left, [_unexplained(graph, left)])
    return None


def rounded_outputs(graph: Graph) -> set[str]:
    """Return the outputs that depend on floating-point numbers."""
    results: Any = graph.module.graph.output_node().args[0]
    nodes = graph.results(results).outputs
    return {
        name
        for name, node in zip(graph.outputs.names, nodes, strict=True)
        if any(_floating(ancestor) for ancestor in ancestry(node))
    }


def _floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _behind(graph: Graph, wrong: list[Difference]) -> set[fx.Node]:
    """Return the nodes that the wrong results are computed from."""
    returned: Any = graph.module.graph.output_node().args[0]
    results = graph.results(returned)
    named = {
        "the loss": results.loss,
        **{f"the gradient of {name}": node for name, node in results.gradients.items()},
        **{
            f"output {name}": node
            for name, node in zip(graph.outputs.names, results.outputs, strict=True)
        },
        **{f"{name} after the step": node for name, node in results.updated.items()},
    }
    return ancestry(*(named[one.name] for one in wrong if one.name in named))


def _unexplained(graph: Graph, left: list[Difference]) -> str:
    """Return what to say where each operation is right and the whole is not."""
    behind = _behind(graph, left)
    for node in graph.module.graph.nodes:
        value = node.meta.get("val")
        if node in behind and isinstance(value, Tensor) and value.dtype == torch.float64:
            return (
                f"forward computes in float64{at(line_of_stack(node.stack_trace))}, of which the "
                "device keeps float32: some seven digits. Take off what is common to the numbers "
                "(an offset, a first time) in collate."
            )
    return (
        "Every operation by itself gives in JAX what it gives in torch, and roundings do not "
        "explain the difference; please report it."
    )


def _not_recorded(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    graph: Graph,
    recorded: Outcome,
    expected: Outcome,
) -> list[str]:
    """Return why forward is not what was recorded of it."""
    causes = []
    again = reference(call, found, batch, train=graph.train, leave_out=graph.left_out)
    if any(one.relative for one in differences(again, expected, _SIDES, rounded=())):
        causes.append(
            "forward gives other results each time it runs on the same batch, with nothing random "
            "in it. Look for a clock, a counter, a cache or a global that it reads or writes."
        )
    unread = _unread(call, found, batch, graph, recorded)
    if unread:
        causes.append(
            f"forward reads the column {', '.join(map(repr, unread))}, which it did without while "
            "it was recorded: it holds no tensor. Make a tensor of it in collate."
        )
    if not causes:
        causes.append(
            "What was recorded of forward is not what it does now: it reads something that has "
            "changed, such as an attribute, a global, or a tensor that cannot be reached from the "
            "component. Keep it in a buffer, or hand it in as a column of the batch."
        )
    return causes


def _unread(
    call: Call, found: Found, batch: Mapping[str, Any], graph: Graph, recorded: Outcome
) -> list[str]:
    """Return the columns without tensors that change what forward gives, if that is the cause."""
    others = [name for name, value in batch.items() if not _holds_tensors(name, value)]
    if not others:
        return []
    try:
        without = {name: value for name, value in batch.items() if name not in others}
        outcome = reference(call, found, without, train=graph.train, leave_out=graph.left_out)
        if any(one.relative > 1e-3 for one in differences(outcome, recorded, _SIDES)):
            return []
        return [
            name
            for name in others
            if _changes(call, found, {**without, name: batch[name]}, graph, outcome)
        ] or others
    except Exception:
        return []  # forward does not do without them, so they were there when it was recorded


def _changes(
    call: Call, found: Found, batch: Mapping[str, Any], graph: Graph, before: Outcome
) -> bool:
    outcome = reference(call, found, batch, train=graph.train, leave_out=graph.left_out)
    return any(one.relative for one in differences(outcome, before, _SIDES, rounded=()))


def _holds_tensors(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) or bool(columns({name: value}))
