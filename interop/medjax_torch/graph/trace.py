"""Tracing of a component's forward into a graph."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.component_state import Inventory
from medjax_torch.graph import host_random
from medjax_torch.graph.assemble import assemble
from medjax_torch.graph.assertions import add_assertions
from medjax_torch.graph.checks import check_aliases, check_constants, check_hooks
from medjax_torch.graph.environment import silent, tracing
from medjax_torch.graph.errors import TraceError, at, cause, line_of_error
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.guards import (
    Source,
    add_guards,
    ancestry,
    is_random,
    refuse_random,
    refuse_unguarded,
    selects,
)
from medjax_torch.graph.influence import Recording, settle
from medjax_torch.graph.joint import Call, Joint
from medjax_torch.graph.long_integers import within_32_bits
from medjax_torch.graph.looked_at import Logged, expecting
from medjax_torch.graph.numbers import Number
from medjax_torch.graph.passes import Rules, functionalize, record
from medjax_torch.graph.pointers import following_int
from medjax_torch.graph.read_numbers import following_math
from medjax_torch.graph.reader import PASSED_ON, Answer, Reader
from medjax_torch.graph.recurrent import RECURRENT, UNDIFFERENTIABLE
from medjax_torch.graph.sized import record_sized
from medjax_torch.graph.sizes import ExactShapesError, Sizes, is_counted, without_values
from medjax_torch.graph.symbols import UNREADABLE, check_symbols, noticing_text


def trace(
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    *,
    train: bool,
    rules: Rules | None = None,
    numbers: Sequence[Number] = (),
    changing: Collection[str] = (),
) -> Graph:
    """Record forward, and in training torch's own backward, as one functional graph.

    Parameters
    ----------
    call : Call
        Takes a dict like `batch` and returns outputs and loss, as the component's forward does
        with ``return_loss=True``. It runs several times if Python reads values of tensors.
    inventory : Inventory
        The component's content. It is left unchanged, even if an error is raised.
    batch : mapping of str to value
        Tensors, which become inputs, and values that are constants of the graph.
    train : bool
        Whether to compute gradients of the parameters that require one.
    rules : Rules, optional
        Replacements and decompositions; by default the graph consists of core aten operations.
    numbers : sequence of Number
        Python numbers that become inputs, as tensors do.
    changing : collection of str
        Parameters and buffers that change from step to step. Truth values that depend on them are
        `Graph.conditions`, not guards.

    Returns
    -------
    Graph
        The graph, recorded on shapes alone; what masks select then has a size of its own, if
        `rules` accept that. If forward reads values (``if labels.any()``), or needs exact shapes of
        what was selected, the graph is recorded on this batch instead, with guards.

    Raises
    ------
    TraceError
        If forward cannot be turned into a graph.
    Exception
        Any error that forward also raises on this batch without being traced; ValueError if it
        returns no loss.
    """
    start = time.perf_counter()
    rules = rules or Rules()
    check_hooks(inventory)
    joint = Joint(call, inventory, batch, train=train, numbers=numbers, mark=rules.mark)
    with host_random.watched(inventory.content.generators) as drawn:
        graph = _on_shapes(joint, rules, drawn, start)
        if isinstance(graph, Exception) and UNDIFFERENTIABLE in str(graph):
            # Forward differentiates a gradient: then recurrent layers are recorded step by step.
            rules = dataclasses.replace(rules, replacements={**rules.replacements, **RECURRENT})
            graph = _on_shapes(joint, rules, drawn, start)
        if isinstance(graph, Exception):
            graph = _on_values(joint, rules, drawn, start, graph, changing)
    check_aliases(inventory, graph)
    return within_32_bits(graph, inventory.tensors, graph.tensors_of(batch))


Drawn = Callable[[], Mapping[str, Any]]


def _on_shapes(
    joint: Joint, rules: Rules, drawn: Drawn, start: float, read: Sequence[Any] = ()
) -> Graph | Exception:
    """Return the graph recorded on shapes alone, or the reason why this batch has none.

    Where forward branches on a number, the decision follows the values in `read`.
    """
    with silent():
        recording = _attempt(lambda: _record_shapes(joint, rules, read))
    host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        return recording
    try:
        graph = assemble(joint, recording, time.perf_counter() - start)
    except (IndexError, RuntimeError) as error:
        if isinstance(error, TraceError):
            raise
        # If an earlier decision was different, later ones may not even be computable.
        return error
    for guard in graph.guards:
        if not guard.expected:
            return ExactShapesError(f"a count is treated as a fixed number{at(guard.line)}")
    return graph


def _on_values(
    joint: Joint,
    rules: Rules,
    drawn: Drawn,
    start: float,
    reason: Exception,
    changing: Collection[str],
) -> Graph:
    """Return the graph recorded on the values of the batch.

    If forward branches on values and also selects by masks, only the decisions are fixed.
    """
    # All recordings draw the same, so that they can be compared.
    drawing = torch.get_rng_state()

    def again(answer: Answer | None, *, follows_int: bool = False) -> Recording | Exception:
        torch.set_rng_state(drawing)
        return _attempt(lambda: _record_values(joint, rules, answer, follows_int=follows_int))

    recording = again(None)
    host_random.refuse(drawn(), joint.eager)
    if isinstance(recording, Exception):
        # An error of the component itself is raised as torch would raise it.
        joint.eager()
        raise TraceError(
            f"forward cannot be traced{at(line_of_error(recording))}: "
            f"{cause(recording)}. Write this part with torch operations on tensors whose shapes do "
            "not depend on values, or do it in collate or prepare_batch."
        ) from recording
    try:
        settled = settle(joint, recording, again, changing)
    except TraceError:
        # Not from the beginning: a stand-in for `int` is no dtype.
        following = functools.partial(again, follows_int=True)
        if not any(read.what == "__int__" for read in recording.reads):
            raise
        recording = following(None)
        if isinstance(recording, Exception):
            raise
        settled = settle(joint, recording, following, changing)
    # Assembled immediately: the joint function keeps the structure of its latest run only.
    graph = assemble(joint, settled, time.perf_counter() - start)
    exact = str(reason) if isinstance(reason, ExactShapesError) else ""
    follows = settled.conditions or settled.left_out or settled.reported
    if not (exact or follows) and rules.accept is not None and _selects_any(settled):
        with tracing(rules.replacements), Logged() as logged:
            joint.eager()
        counted: Graph | Exception
        try:
            counted = _on_shapes(joint, rules, drawn, start, logged.values)
        except TraceError as error:
            counted = error
        if isinstance(counted, Graph):
            return dataclasses.replace(counted, on_values=True)
        exact = str(counted)
    return dataclasses.replace(graph, exact=exact, on_values=True)


def _selects_any(recording: Recording) -> bool:
    return any(selects(source.what) for source in recording.sources)


def _attempt(record: Callable[[], Recording]) -> Recording | Exception:
    """Return the error instead of raising it, so that a later error is not chained to it."""
    try:
        return record()
    except TraceError:
        raise
    except Exception as error:
        return error


def _record_shapes(joint: Joint, rules: Rules, read: Sequence[Any]) -> Recording:
    inputs = joint.arguments()
    with noticing_text() as check_text, tracing({**rules.replacements, **UNREADABLE}):
        sizes, stand_ins = without_values(inputs)
        forward = expecting(joint.forward, sizes, read) if read else joint.forward
        first = record(forward, stand_ins, "fake", rules)
        check_constants(first, train=joint.train)
        sources = add_assertions(first, len(joint.state))
        if sizes.conditions or any(is_counted(node) for node in first.graph.nodes):
            if rules.accept is None:
                raise ExactShapesError("shapes depend on values")
            check_text()
            return _sized(first, sizes, inputs, rules, sources)
        recorded = functionalize(first, inputs, "fake", rules)
    check_text()
    check_symbols(recorded, joint)
    refuse_unguarded(recorded.graph)
    return Recording(recorded, sources)


def _sized(
    first: fx.GraphModule,
    sizes: Sizes,
    inputs: Sequence[Tensor],
    rules: Rules,
    asserted: Sequence[Source],
) -> Recording:
    recorded, lines = record_sized(first, sizes, inputs, rules, len(asserted))
    sources = [*asserted, *(Source(*line) for line in lines)]
    results: Any = recorded.graph.output_node().args[0]
    for source, value in zip(sources, results[len(results) - len(sources) :], strict=True):
        if any(map(is_random, ancestry(value))):
            raise refuse_random(source)
    return Recording(recorded, sources)


def _record_values(
    joint: Joint, rules: Rules, answer: Answer | None, *, follows_int: bool
) -> Recording:
    inputs = joint.arguments()
    reader = Reader(len(joint.trained) + len(joint.frozen), answer)
    numbers = following_int(joint.inventory.content) if follows_int else nullcontext()
    with reader, numbers, following_math(), tracing({**rules.replacements, **PASSED_ON}):
        first = record(joint.forward, inputs, "real", rules)
        check_constants(first, train=joint.train)
        refuse_unguarded(first.graph)
        sources = add_guards(first)
        recorded = functionalize(first, inputs, "real", rules)
    reader.check_copies()
    refuse_unguarded(recorded.graph)
    return Recording(recorded, sources, reader.reads)
