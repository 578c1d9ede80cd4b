"""Diagnosis of a difference between JAX and torch: a lowering, the trace, or rounding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.component_state import Inventory
from medjax_torch.graph import Graph
from medjax_torch.graph.batch_columns import columns
from medjax_torch.graph.errors import at, line_of_stack
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.joint import Call
from medjax_torch.verification.comparison import Difference, differences
from medjax_torch.verification.graph_in_torch import outcome_in_torch
from medjax_torch.verification.lowering_check import wrong_lowerings
from medjax_torch.verification.reference import Outcome, reference
from medjax_torch.verification.rounding import explained

_SIDES = ("the graph", "torch")


class Finding(NamedTuple):
    """The cause of a difference.

    Attributes
    ----------
    wrong : list of Difference
        The differences that rounding does not explain.
    causes : list of str
        Sentences for the user, the most likely cause first.
    """

    wrong: list[Difference]
    causes: list[str]


def diagnose(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    graph: Graph,
    expected: Outcome,
    wrong: list[Difference],
    tolerance: float,
) -> Finding | None:
    """Find out why JAX and torch differ.

    The graph itself is run in torch. If its results differ from those of forward, the graph no
    longer matches forward. Otherwise each operation is run in JAX and in torch on the same
    arguments.

    Parameters
    ----------
    call, inventory, batch, graph
        As in `verification.verify`.
    expected : Outcome
        torch's outcome, from `reference`.
    wrong : list of Difference
        The results whose difference in JAX exceeds the tolerance.
    tolerance : float
        The largest relative difference that needs no explanation.

    Returns
    -------
    Finding or None
        None if rounding explains the differences and every lowering is correct.
    """
    try:
        recorded = outcome_in_torch(graph, inventory, batch)
        excused = explained(graph, inventory, batch, expected)
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
        causes = _not_recorded(call, inventory, batch, graph, recorded, expected)
        return Finding([one for one in wrong if one.name in named] or unlike, causes)
    lowerings = wrong_lowerings(graph, inventory, batch, _sources(graph, wrong))
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


def _sources(graph: Graph, wrong: list[Difference]) -> set[fx.Node]:
    """Return the nodes from which the wrong results are computed."""
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
    """Return the message for a difference although each operation by itself is correct."""
    sources = _sources(graph, left)
    for node in graph.module.graph.nodes:
        value = node.meta.get("val")
        if node in sources and isinstance(value, Tensor) and value.dtype == torch.float64:
            return (
                f"forward computes in float64{at(line_of_stack(node.stack_trace))}, which the "
                "device rounds to float32, with about seven digits. Subtract what the numbers "
                "have in common (an offset, a start time) in collate."
            )
    return (
        "Each operation by itself gives the same result in JAX and in torch, and rounding does "
        "not explain the difference; please report it."
    )


def _not_recorded(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    graph: Graph,
    recorded: Outcome,
    expected: Outcome,
) -> list[str]:
    """Return why forward differs from its graph."""
    causes = []
    again = reference(call, inventory, batch, train=graph.train, leave_out=graph.left_out)
    if any(one.relative for one in differences(again, expected, _SIDES, rounded=())):
        causes.append(
            "forward returns different results each time it runs on the same batch, even with the "
            "same random draws. Look for a clock, a counter, a cache or a global that it reads or "
            "writes."
        )
    unread = _unread(call, inventory, batch, graph, recorded)
    if unread:
        causes.append(
            f"forward reads the column {', '.join(map(repr, unread))}, which is not part of the "
            "graph because it is not a tensor. Convert it to a tensor in collate."
        )
    if not causes:
        causes.append(
            "forward no longer does what was traced: it reads something that has changed, such as "
            "an attribute, a global, or a tensor that cannot be reached from the component. Keep "
            "it in a buffer, or pass it as a column of the batch."
        )
    return causes


def _unread(
    call: Call, inventory: Inventory, batch: Mapping[str, Any], graph: Graph, recorded: Outcome
) -> list[str]:
    """Return the columns without tensors that change forward's results, if that is the cause."""
    others = [name for name, value in batch.items() if not _holds_tensors(name, value)]
    if not others:
        return []
    try:
        without = {name: value for name, value in batch.items() if name not in others}
        outcome = reference(call, inventory, without, train=graph.train, leave_out=graph.left_out)
        if any(one.relative > 1e-3 for one in differences(outcome, recorded, _SIDES)):
            return []
        return [
            name
            for name in others
            if _changes(call, inventory, {**without, name: batch[name]}, graph, outcome)
        ] or others
    except Exception:
        return []  # forward needs them, so they were in the batch when it was traced


def _changes(
    call: Call, inventory: Inventory, batch: Mapping[str, Any], graph: Graph, before: Outcome
) -> bool:
    outcome = reference(call, inventory, batch, train=graph.train, leave_out=graph.left_out)
    return any(one.relative for one in differences(outcome, before, _SIDES, rounded=()))


def _holds_tensors(name: str, value: Any) -> bool:
    return isinstance(value, Tensor) or bool(columns({name: value}))
