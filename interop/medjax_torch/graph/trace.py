"""From a component's forward to a graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from medjax_torch.graph import host_random
from medjax_torch.graph.assemble import assemble
from medjax_torch.graph.checks import check_aliases, check_constants, check_hooks
from medjax_torch.graph.environment import silent, tracing
from medjax_torch.graph.errors import TraceError, at, line_of_error
from medjax_torch.graph.guards import add_guards, refuse_unguarded
from medjax_torch.graph.influence import Recording, settle
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.passes import Mode, Rules, functionalize, record
from medjax_torch.graph.read_numbers import following_math
from medjax_torch.graph.reader import PASSED_ON, Answer, Reader
from medjax_torch.graph.record import Graph
from medjax_torch.graph.symbols import UNREADABLE, check_symbols, noticing_text
from medjax_torch.modules import Found


class _ShapeOfValuesError(Exception):
    """The shape of something depends on values, so it has to be recorded on real ones."""


def trace(
    call: Call,
    found: Found,
    batch: Mapping[str, Any],
    *,
    train: bool,
    rules: Rules | None = None,
    changing: Collection[str] = (),
) -> Graph:
    """Record forward, and in training torch's own backward, as one functional graph.

    Parameters
    ----------
    call : Call
        Takes a dict like `batch` and returns outputs and loss, as the component's forward does
        with ``return_loss=True``. Runs some times more where Python looks at values.
    found : Found
        The component's content. It is left as it was, whatever happens.
    batch : mapping of str to value
        Tensors, which become inputs, and values that are fixed.
    train : bool
        Whether to compute gradients of the parameters that require one.
    rules : Rules, optional
        Replacements and decompositions; by default core aten is what remains.
    changing : collection of str
        Parameters and buffers that change from step to step. Truth values that depend on them are
        `Graph.conditions`, not guards.

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
        recording = _record_any(joint, rules, drawn, changing)
        graph = assemble(joint, recording, time.perf_counter() - start)
    check_aliases(found, graph)
    return graph


def _record_any(
    joint: Joint,
    rules: Rules,
    drawn: Callable[[], Mapping[str, Any]],
    changing: Collection[str],
) -> Recording:
    """Record on shapes alone, else on the values of the batch."""
    with silent():
        recording = _attempt(joint, "fake", rules)
    host_random.refuse(drawn(), joint.eager)
    if not isinstance(recording, Exception):
        return recording
    # All recordings draw the same, so that they can be compared.
    drawing = torch.get_rng_state()

    def again(answer: Answer) -> Recording | Exception:
        torch.set_rng_state(drawing)
        return _attempt(joint, "real", rules, answer)

    recording = _attempt(joint, "real", rules)
    host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        # An error of the component itself comes out as torch would raise it.
        joint.eager()
        raise TraceError(
            f"forward cannot be traced{at(line_of_error(recording))}: "
            f"{type(recording).__name__}: {recording}. Write this part with torch operations on "
            "tensors whose shapes do not depend on values."
        ) from recording
    return settle(joint, recording, again, changing)


def _attempt(
    joint: Joint, mode: Mode, rules: Rules, answer: Answer | None = None
) -> Recording | Exception:
    """Return the error instead of raising it, so that the next attempt's is not chained to it."""
    try:
        return _on_shapes(joint, rules) if mode == "fake" else _on_values(joint, rules, answer)
    except TraceError:
        raise
    except Exception as error:
        return error


def _on_shapes(joint: Joint, rules: Rules) -> Recording:
    inputs = joint.arguments()
    with noticing_text() as check_text, tracing({**rules.replacements, **UNREADABLE}):
        first = record(joint.forward, inputs, "fake", rules)
        check_constants(first, train=joint.train)
        recorded = functionalize(first, inputs, "fake", rules)
    check_text()
    check_symbols(recorded, joint)
    if any(_is_dynamic(node) for node in recorded.graph.nodes):
        raise _ShapeOfValuesError
    refuse_unguarded(recorded.graph)
    return Recording(recorded, [])


def _on_values(joint: Joint, rules: Rules, answer: Answer | None) -> Recording:
    inputs = joint.arguments()
    reader = Reader(len(joint.trained) + len(joint.frozen), answer)
    with reader, following_math(), tracing({**rules.replacements, **PASSED_ON}):
        first = record(joint.forward, inputs, "real", rules)
        check_constants(first, train=joint.train)
        sources = add_guards(first)
        recorded = functionalize(first, inputs, "real", rules)
    reader.check_copies()
    refuse_unguarded(recorded.graph)
    return Recording(recorded, sources, reader.reads)


def _is_dynamic(node: fx.Node) -> bool:
    values = pytree.tree_leaves(node.meta.get("val"))
    return any(
        isinstance(size, torch.SymInt)
        for value in values
        if isinstance(value, Tensor)
        for size in value.shape
    )
