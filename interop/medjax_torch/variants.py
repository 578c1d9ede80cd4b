"""Which graph a batch runs in: one for each kind of batch, traced when the first comes."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch.nn import functional as F

from medjax.models.attention import AttentionImplementation
from medjax_torch.graph import Graph, Rules, TraceError, columns, signature, trace
from medjax_torch.graph.errors import at
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.joint import Call
from medjax_torch.lowerings import custom_ops, decompositions
from medjax_torch.modules import Found

logger = logging.getLogger("medjax")


def tracing_rules(attention_implementation: AttentionImplementation = "xla") -> Rules:
    """Return what the tracer is told, so that the lowerings know what it records.

    Parameters
    ----------
    attention_implementation : {"xla", "cudnn"}
        See `Options`.
    """
    attend = {F.scaled_dot_product_attention: custom_ops.scaled_dot_product_attention}
    return Rules(
        replacements={
            F.ctc_loss: custom_ops.ctc_loss,
            torch.ctc_loss: custom_ops.ctc_loss,
            **(attend if attention_implementation == "cudnn" else {}),
        },
        before_autograd=decompositions.before_autograd(),
        after_autograd=decompositions.after_autograd(),
    )


class Variants:
    """The graphs of a component.

    Parameters
    ----------
    found : Found
        The component's content.
    max_variants : int
        Graphs for batches of one signature, which differ in the values that forward looks at.
    rules : Rules
        What the tracer is told; see `tracing_rules`.
    may_skip : bool
        Whether batches whose loss is not finite are left out.

    Attributes
    ----------
    graphs : list of Graph
        In the order they were traced.
    """

    def __init__(
        self, found: Found, max_variants: int, rules: Rules, *, may_skip: bool = False
    ) -> None:
        self.graphs: list[Graph] = []
        self._found = found
        self._max_variants = max_variants
        self._rules = rules
        self._may_skip = may_skip
        self._numbers: dict[tuple[bool, Hashable], list[int]] = {}
        self._reads_values: dict[bool, bool] = {}
        self._warned: set[str] = set()

    @property
    def seconds(self) -> float:
        """How long tracing took, all in all."""
        return sum(graph.seconds for graph in self.graphs)

    def visible(self, batch: Mapping[str, Any], *, train: bool) -> dict[str, Any]:
        """Return what the graph depends on: the tensors, and other columns if forward reads them.

        Texts and identifiers, which differ in every batch, would ask for a graph each.
        """
        if self._reads_values.get(train, False):
            return dict(batch)
        return {
            name: value
            for name, value in batch.items()
            if isinstance(value, torch.Tensor) or columns({name: value})
        }

    def number(self, call: Call, batch: Mapping[str, Any], *, train: bool) -> int:
        """Return the position in `graphs` of the graph for a batch, traced if it is new.

        Parameters
        ----------
        call : Call
            The component's forward.
        batch : mapping of str to value
            What the component's forward would get.
        train : bool
            Whether gradients are wanted.

        Raises
        ------
        TraceError
            If forward cannot be a graph, or decides by its values in too many ways.
        """
        if train not in self._reads_values:
            return self._first(call, batch, train=train)
        seen = self.visible(batch, train=train)
        known = self._numbers.setdefault((train, signature(seen)), [])
        for number in known:
            if self._valid(self.graphs[number], seen):
                return number
        if len(known) == self._max_variants:
            raise TraceError(self._too_many(known))
        return self._add(self._trace(call, seen, train=train), known)

    def _trace(self, call: Call, batch: Mapping[str, Any], *, train: bool) -> Graph:
        found, rules = self._found, self._rules
        return trace(call, found, batch, train=train, rules=rules, changing=self._changing())

    def _changing(self) -> set[str]:
        """Return the names of what is known to change in training."""
        trained = {name for name, p in self._found.parameters.items() if p.requires_grad}
        return trained | {name for each in self.graphs for name in each.updated}

    def _first(self, call: Call, batch: Mapping[str, Any], *, train: bool) -> int:
        """Find out whether forward can do without the columns that are no tensors."""
        seen = self.visible(batch, train=train)
        self._reads_values[train] = False
        if len(seen) < len(batch):
            try:
                graph = self._trace(call, seen, train=train)
            except Exception:
                # Whether the columns were missing or something else is wrong shows with them.
                self._reads_values[train] = True
                seen = dict(batch)
                graph = self._trace(call, seen, train=train)
        else:
            graph = self._trace(call, seen, train=train)
        return self._add(graph, self._numbers.setdefault((train, signature(seen)), []))

    def _add(self, graph: Graph, known: list[int]) -> int:
        self._check_gradients(graph)
        self._check_conditions(graph)
        self.graphs.append(graph)
        for each in self.graphs:
            self._check_guards(each)
        self._warn_of_effects(graph)
        self._warn_of_reports(graph)
        known.append(len(self.graphs) - 1)
        logger.info("Traced forward for a new kind of batch in %.1f s", graph.seconds)
        return known[-1]

    def _valid(self, graph: Graph, batch: Mapping[str, Any]) -> bool:
        if graph.guard_module is None:
            return True
        inputs = graph.inputs(self._found.tensors, columns(batch))
        with torch.no_grad():
            return graph.holds([value.item() for value in graph.guard_module(*inputs)])

    def _check_gradients(self, graph: Graph) -> None:
        """Raise TraceError where what is trained differs from graph to graph."""
        written = sorted(set(graph.updated) & set(graph.trained))
        if written:
            raise TraceError(
                f"forward itself writes to {', '.join(written)}, which the optimizer updates. "
                "Write to a buffer, or to a parameter with requires_grad=False."
            )
        for other in self.graphs:
            differing = sorted(set(graph.gradients) ^ set(other.gradients))
            if graph.train and other.train and differing:
                raise TraceError(
                    f"{', '.join(differing)} gets a gradient from some batches and none from "
                    "others, so that the optimizer would have to skip it now and then. Let every "
                    "batch use it, for instance multiplied by 0."
                )

    def _check_guards(self, graph: Graph) -> None:
        """Raise TraceError if forward decides by state that changes in training.

        The host checks guards before each step, and the state is on the device.
        """
        if graph.guard_module is None:
            return
        changing = self._changing()
        names = (*graph.trained, *graph.frozen, *graph.buffers, *graph.columns)
        inputs = graph.guard_module.graph.find_nodes(op="placeholder")
        looked: Any = graph.guard_module.graph.output_node().args[0]
        for guard, node in zip(graph.guards, looked, strict=True):
            behind = ancestry(node)
            for name, placeholder in zip(names, inputs, strict=True):
                if placeholder in behind and name in changing:
                    raise TraceError(
                        f"forward decides by a value{f' at {guard.line}' if guard.line else ''} "
                        f"that depends on {name}, which changes in training. Use torch.where with "
                        "both results."
                    )

    def _check_conditions(self, graph: Graph) -> None:
        """Raise TraceError if batches may be left out and a decision could be lost with them."""
        if not self._may_skip:
            return
        for condition in graph.conditions:
            if not condition.is_of_finiteness:
                raise TraceError(
                    f"forward decides by a value{at(condition.line)} that changes in training. "
                    "Where it decides otherwise the graph is not valid, and with "
                    "Options(on_non_finite='skip') such a batch would be left out without a word. "
                    "Use torch.where with both results, or on_non_finite='raise'."
                )

    def _warn_of_reports(self, graph: Graph) -> None:
        new = [line for line in graph.reported if line not in self._warned]
        if new:
            self._warned.update(new)
            logger.warning(
                "forward reads values at %s, on which neither loss nor gradients depend. What it "
                "prints, logs or keeps there is of the batches that were traced, not of every step",
                "; ".join(new),
            )

    def _warn_of_effects(self, graph: Graph) -> None:
        new = sorted(set(graph.effects) - self._warned)
        if new:
            self._warned.update(new)
            logger.warning(
                "forward leaves something in %s, which happens while it is traced and not at "
                "every step; return it as an output, or keep it in a buffer",
                ", ".join(new),
            )

    def _too_many(self, known: list[int]) -> str:
        guards = self.graphs[known[0]].guards
        lines = sorted({guard.line for guard in guards if guard.line}) or ["lines not recorded"]
        return (
            f"forward decides by values of the batch at {', '.join(lines)} in more than "
            f"{self._max_variants} ways. Use torch.where with both results, or raise "
            "Options(max_variants=...)"
        )
