"""Recompute the checkpointed functions of a component in the backward pass.

While torch records, a checkpointed function runs once and its operations are marked, as are those
of the backward pass. In the finished graph the backward pass then reads copies of the marked
operations. As in `jax.checkpoint`, a barrier that waits for the gradient reaching the function
stands between the copies and their inputs. Without it, XLA would see that the copies compute
existing values, and would keep those values in memory.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx

from medjax_torch.graph.guards import is_random
from medjax_torch.torch_internals import get_proxy_mode

BACKWARD = "backward"
_KEY = "medjax_part"


@contextmanager
def marked(part: str | None = None) -> Iterator[None]:
    """Mark the operations that torch records in the block; the outermost of nested blocks counts.

    Parameters
    ----------
    part : str, optional
        `BACKWARD` for the backward pass; by default the block is a checkpointed function.
    """
    mode = get_proxy_mode()
    if mode is None:
        yield
        return
    last = next(iter(reversed(mode.tracer.graph.nodes)))
    yield
    for node in _after(last):
        # torch passes only the metadata under "custom" on to the second recording.
        node.meta["custom"] = {**node.meta.get("custom", {}), _KEY: part or last.name}


def _after(node: fx.Node) -> Iterator[fx.Node]:
    while node.next.op != "root":
        node = node.next
        yield node


def barrier(values: Sequence[Any]) -> list[Any]:
    """Return the values, each of them only once all are computed."""
    return list(values)


def recompute(graph: fx.Graph) -> None:
    """Make the backward pass of a graph recompute the results of checkpointed functions.

    Random draws are not repeated. Integers are kept as well, because they later serve as indices.
    """
    position = {node: number for number, node in enumerate(graph.nodes)}
    functions: dict[str, list[fx.Node]] = {}
    for node in graph.nodes:
        part = _part(node)
        if part not in (None, BACKWARD):
            functions.setdefault(str(part), []).append(node)
    for inside in functions.values():
        _recompute(graph, inside, position)


def _recompute(graph: fx.Graph, inside: list[fx.Node], position: dict[fx.Node, int]) -> None:
    again = {node for node in inside if not _is_kept(node, inside)}
    readers = [
        (node, user) for node in inside if node in again for user in node.users if _reads(user)
    ]
    if not readers:
        return
    copied = _needed([node for node, _ in readers], again)
    first = min((user for _, user in readers), key=position.__getitem__)
    starts = {
        source: None
        for node in inside
        if node in copied
        for source in node.all_input_nodes
        if source not in copied and _waits(source)
    }
    copies: dict[fx.Node, fx.Node] = {}
    with graph.inserting_before(first):
        behind = [*starts, *_incoming(first, position)]
        together = graph.call_function(barrier, (behind,))
        together.meta["val"] = [source.meta["val"] for source in behind]
        for number, source in enumerate(starts):
            copies[source] = graph.call_function(operator.getitem, (together, number))
            copies[source].meta["val"] = source.meta["val"]
        for node in inside:
            if node in copied:
                copies[node] = graph.node_copy(node, lambda source: copies.get(source, source))
    for node, user in readers:
        user.replace_input_with(node, copies[node])


def _part(node: fx.Node) -> str | None:
    part: str | None = node.meta.get("custom", {}).get(_KEY)
    return part


def _reads(node: fx.Node) -> bool:
    return _part(node) == BACKWARD


def _is_kept(node: fx.Node, inside: Sequence[fx.Node]) -> bool:
    """Return whether a value of a checkpointed function exists in the backward pass anyway."""
    own = _part(inside[0])
    left = any(_part(user) not in (own, BACKWARD) for user in node.users)
    return left or is_random(node) or not _is_floating(node)


def _waits(source: fx.Node) -> bool:
    """Return whether copies must wait for a value: not for weights, batches and random draws."""
    is_tensor = isinstance(source.meta.get("val"), Tensor) and _is_floating(source)
    return source.op == "call_function" and is_tensor and not is_random(source)


def _is_floating(node: fx.Node) -> bool:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return isinstance(value, tuple | list)
    return value.is_floating_point() or value.is_complex()


def _needed(wanted: Sequence[fx.Node], again: set[fx.Node]) -> set[fx.Node]:
    needed: set[fx.Node] = set()
    pending = list(wanted)
    while pending:
        latest = pending.pop()
        if latest not in needed:
            needed.add(latest)
            pending += [source for source in latest.all_input_nodes if source in again]
    return needed


def _incoming(first: fx.Node, position: dict[fx.Node, int]) -> list[fx.Node]:
    """Return the gradient with which the backward pass of a function starts at node `first`."""
    for node in (first, *_after(first)):
        for source in node.all_input_nodes if _reads(node) else ():
            if _reads(source) and position[source] < position[first]:
                return [source]
    return []
