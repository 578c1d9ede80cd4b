"""From a component's forward to a graph."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from medjax_torch.graph import host_random
from medjax_torch.graph.assemble import assemble
from medjax_torch.graph.checks import check_aliases, check_constants, check_hooks
from medjax_torch.graph.environment import tracing
from medjax_torch.graph.errors import TraceError, at, cause, line_of_error
from medjax_torch.graph.guards import add_guards, refuse_unguarded, selects
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.long_integers import within_32_bits
from medjax_torch.graph.looked_at import Logged, expecting
from medjax_torch.graph.numbers import Number
from medjax_torch.graph.passes import Mode, Rules, functionalize, record
from medjax_torch.graph.record import Graph
from medjax_torch.graph.sized import record_sized
from medjax_torch.graph.sizes import ExactShapesError, is_counted, without_values
from medjax_torch.modules import Found

_Recording = tuple[fx.GraphModule, list[tuple[str, str]]]
"""A functional graph, and line and operation of every guarded value at the end of its outputs."""


def trace(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    *,
    train: bool,
    rules: Rules | None = None,
    numbers: Sequence[Number] = (),
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
    numbers : sequence of Number
        Python numbers that become inputs as tensors do.

    Returns
    -------
    Graph
        Recorded on shapes alone; what masks select then has a size of its own, if `rules` accept
        that. If forward looks at values (``if labels.any()``), or needs exact shapes of what was
        selected, recorded on this batch instead, with guards.

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
    joint = Joint(call, found, batch, train=train, numbers=numbers)
    with host_random.watched(found.content.generators) as drawn:
        graph = _on_shapes(joint, rules, drawn, start)
        if isinstance(graph, Exception):
            graph = _on_values(joint, rules, drawn, start, graph)
    check_aliases(found, graph)
    return within_32_bits(graph, found.tensors, graph.tensors_of(batch))


Drawn = Callable[[], Mapping[str, Any]]


def _on_shapes(
    joint: Joint, rules: Rules, drawn: Drawn, start: float, read: Sequence[Any] = ()
) -> Graph | Exception:
    """Return the graph recorded on shapes alone, or why there is none for this batch.

    Where forward decides by a number, it does as `read` has it.
    """
    recording = _attempt(joint, "fake", rules, read)
    host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        return recording
    recorded, sources = recording
    try:
        graph = assemble(joint, recorded, sources, time.perf_counter() - start)
    except (IndexError, RuntimeError) as error:
        if isinstance(error, TraceError):
            raise
        # What is decided further on cannot even be computed if it was decided otherwise before.
        return error
    for guard in graph.guards:
        if not guard.expected:
            return ExactShapesError(f"a count is taken for a number{at(guard.line)}")
    return graph


def _on_values(joint: Joint, rules: Rules, drawn: Drawn, start: float, reason: Exception) -> Graph:
    """Return the graph recorded on the values of the batch.

    If forward decided by values and selects by masks besides, the decisions alone are fixed.
    """
    recorded, sources = _real(joint, rules, drawn)
    # At once: the joint function keeps the structure of its latest run.
    graph = assemble(joint, recorded, sources, time.perf_counter() - start)
    exact = str(reason) if isinstance(reason, ExactShapesError) else ""
    if not exact and rules.accept is not None and any(selects(what) for _, what in sources):
        with tracing(rules.replacements), Logged() as logged:
            joint.eager()
        counted: Graph | Exception
        try:
            counted = _on_shapes(joint, rules, drawn, start, logged.values)
        except TraceError as error:
            counted = error
        if isinstance(counted, Graph):
            return counted
        exact = str(counted)
    return dataclasses.replace(graph, exact=exact)


def _real(joint: Joint, rules: Rules, drawn: Drawn) -> _Recording:
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


def _attempt(
    joint: Joint, mode: Mode, rules: Rules, read: Sequence[Any] = ()
) -> _Recording | Exception:
    """Return the error instead of raising it, so that the next attempt's is not chained to it."""
    try:
        return _record(joint, mode, rules, read)
    except TraceError:
        raise
    except Exception as error:
        return error


def _record(joint: Joint, mode: Mode, rules: Rules, read: Sequence[Any] = ()) -> _Recording:
    inputs = joint.arguments()
    sources: list[tuple[str, str]] = []
    with tracing(rules.replacements):
        sizes, given = without_values(inputs) if mode == "fake" else (None, inputs)
        forward = expecting(joint.forward, sizes, read) if sizes and read else joint.forward
        first = record(forward, given, mode, rules)
        check_constants(first, train=joint.train)
        if sizes is None:
            refuse_unguarded(first.graph)
            sources = add_guards(first)
        elif sizes.conditions or any(is_counted(node) for node in first.graph.nodes):
            if rules.accept is None:
                raise ExactShapesError("shapes depend on values")
            return record_sized(first, sizes, inputs, rules)
        recorded = functionalize(first, inputs, mode, rules)
    refuse_unguarded(recorded.graph)
    return recorded, sources
