"""From a component's forward to a graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from medjax_torch.graph import host_random
from medjax_torch.graph.assemble import assemble
from medjax_torch.graph.batches import columns
from medjax_torch.graph.checks import check_aliases, check_constants, check_hooks
from medjax_torch.graph.environment import tracing
from medjax_torch.graph.errors import TraceError, at, cause, line_of_error
from medjax_torch.graph.guards import add_guards, refuse_unguarded
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.long_integers import within_32_bits
from medjax_torch.graph.passes import Mode, Rules, functionalize, record
from medjax_torch.graph.record import Graph
from medjax_torch.modules import Found

_Recording = tuple[fx.GraphModule, list[tuple[str, str]]]
"""A functional graph, and line and operation of every guarded value at the end of its outputs."""


class _ShapeOfValuesError(Exception):
    """The shape of something depends on values, so it has to be recorded on real ones."""


def trace(
    call: Call, found: Found, batch: Mapping[str, Any], *, train: bool, rules: Rules | None = None
) -> Graph:
    """Record forward, and in training torch's own backward, as one functional graph.

    Parameters
    ----------
    call : Call
        Takes a dict like `batch` and returns outputs and loss, as the component's forward does
        with ``return_loss=True``. Runs up to three times.
    found : Found
        The component's content. It is left as it was, whatever happens.
    batch : mapping of str to value
        Tensors, which become inputs, and values that are fixed.
    train : bool
        Whether to compute gradients of the parameters that require one.
    rules : Rules, optional
        Replacements and decompositions; by default core aten is what remains.

    Returns
    -------
    Graph
        Recorded on shapes alone. If forward looks at values (``if labels.any()``, ``.item()``,
        boolean masks), recorded on this batch instead, with guards.

    Raises
    ------
    TraceError
        If forward cannot be a graph.
    Exception
        Whatever forward raises on this batch without being traced too; ValueError if it returns
        no loss.
    """
    start = time.perf_counter()
    rules = rules or Rules()
    check_hooks(found)
    joint = Joint(call, found, batch, train=train)
    with host_random.watched(found.content.generators) as drawn:
        recorded, sources = _record_any(joint, rules, drawn)
        graph = assemble(joint, recorded, sources, time.perf_counter() - start)
    check_aliases(found, graph)
    return within_32_bits(graph, found.tensors, columns(batch))


def _record_any(joint: Joint, rules: Rules, drawn: Callable[[], Mapping[str, Any]]) -> _Recording:
    """Record on shapes alone, else on the values of the batch."""
    recording = _attempt(joint, "fake", rules)
    host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        recording = _attempt(joint, "real", rules)
        host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        # An error of the component itself comes out as torch would raise it.
        joint.eager()
        raise TraceError(
            f"forward cannot be traced{at(line_of_error(recording))}: "
            f"{cause(recording)}. Write this part with torch operations on tensors whose shapes do "
            "not depend on values, or do it in collate or prepare_batch."
        ) from recording
    return recording


def _attempt(joint: Joint, mode: Mode, rules: Rules) -> _Recording | Exception:
    """Return the error instead of raising it, so that the next attempt's is not chained to it."""
    try:
        return _record(joint, mode, rules)
    except TraceError:
        raise
    except Exception as error:
        return error


def _record(joint: Joint, mode: Mode, rules: Rules) -> _Recording:
    inputs = joint.arguments()
    sources: list[tuple[str, str]] = []
    with tracing(rules.replacements):
        first = record(joint.forward, inputs, mode, rules)
        check_constants(first, train=joint.train)
        if mode == "real":
            sources = add_guards(first)
        recorded = functionalize(first, inputs, mode, rules)
    if mode == "fake" and any(_is_dynamic(node) for node in recorded.graph.nodes):
        raise _ShapeOfValuesError
    refuse_unguarded(recorded.graph)
    return recorded, sources


def _is_dynamic(node: fx.Node) -> bool:
    values = pytree.tree_leaves(node.meta.get("val"))
    return any(
        isinstance(size, torch.SymInt)
        for value in values
        if isinstance(value, Tensor)
        for size in value.shape
    )
