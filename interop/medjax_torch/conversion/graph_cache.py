"""A cache of graphs: one for each kind of batch, traced when the first such batch comes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from medjax.runtime import give_back_memory, size_of, waiting_for
from medjax_torch.component_state import Inventory
from medjax_torch.component_state.gradient_hooks import GradientHooks
from medjax_torch.component_state.watch import TensorWatch
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.conversion.conditions import Conditions, said_of_returned
from medjax_torch.conversion.stored_values import StoredValues, are_read
from medjax_torch.conversion.trials import trial
from medjax_torch.graph import Graph, Rules, TraceError, columns, host_draws, same, signature, trace
from medjax_torch.graph.errors import at
from medjax_torch.graph.guards import ancestry
from medjax_torch.graph.host_random import HostRandomError
from medjax_torch.graph.joint import Call
from medjax_torch.graph.numbers import PREFIX, Number, is_number
from medjax_torch.torch_internals import disable_torch_function_of_subclasses
from medjax_torch.verification import check_left_out

logger = logging.getLogger("medjax")

_OFTEN = 8
"""Number of traces of one kind of batch after which a warning names the cause."""

Check = Callable[[Graph], None]
"""Raises an error if a graph does not compute what torch computes."""


class _Kept(NamedTuple):
    """A graph, by its number, and the conditions under which it is valid."""

    conditions: Conditions
    number: int


class GraphCache:
    """The graphs of a component.

    Parameters
    ----------
    inventory : Inventory
        The component's content.
    max_variants : int
        Limit on the graphs of one signature, which differ in the values that forward looks at.
    rules : Rules
        The tracer's rules; see `tracing_rules`.
    may_skip : bool
        Whether batches whose loss is not finite are skipped.

    Attributes
    ----------
    graphs : list of Graph
        The graphs, in the order in which they were traced.
    inventory : Inventory
        The component's content, to be replaced when the component holds other tensors.
    seconds : float
        Total time spent on tracing.
    stored : StoredValues
        What forward stores in plain values of the component.
    watch : TensorWatch or None
        Tells whether user code may have changed which parameters require a gradient; None outside
        a session.
    """

    def __init__(
        self,
        inventory: Inventory,
        max_variants: int,
        rules: Rules,
        *,
        may_skip: bool = False,
    ) -> None:
        self.graphs: list[Graph] = []
        self.inventory = inventory
        self.seconds = 0.0
        self.stored = StoredValues()
        self.watch: TensorWatch | None = None
        self._learning: frozenset[str] = frozenset()
        self._hooks = GradientHooks([])
        self._max_variants = max_variants
        self._rules = rules
        self._may_skip = may_skip
        self._kept: dict[tuple[bool, Hashable], list[_Kept]] = {}
        self._live: dict[bool, dict[str, Number]] = {True: {}, False: {}}
        self._fixed: dict[bool, set[str]] = {True: set(), False: set()}
        self._warned: set[str] = set()

    def known(self, batch: Mapping[str, Any], *, train: bool, shape: Hashable = None) -> int | None:
        """Return the position in `graphs` of the graph for a batch, None if there is none yet.

        Parameters
        ----------
        batch : mapping of str to value
            The batch as the component's forward would get it.
        train : bool
            Whether gradients are computed.
        shape : hashable, optional
            The `signature` of the batch, if it is known and the batch holds only tensors.
        """
        kept = self._kept_for(batch, train, shape)
        for place, (conditions, number) in enumerate(kept):
            if conditions.hold(batch) and self._valid(self.graphs[number], batch):
                if place:
                    kept.insert(0, kept.pop(place))
                return number
        return None

    def add(
        self, call: Call, batch: Mapping[str, Any], *, train: bool, check: Check | None = None
    ) -> int:
        """Trace a graph for a batch and return its position in `graphs`.

        Parameters
        ----------
        call : Call
            The component's forward.
        batch, train
            As for `known`.
        check : callable, optional
            Called before a number becomes an input; raises if the graph is wrong.

        Raises
        ------
        TraceError
            If forward cannot be turned into a graph, or branches on values in too many ways.
        """
        kept = self._kept_for(batch, train)
        number, conditions = self._traced(call, batch, train, check)
        floats = set(conditions.number_columns(batch)) - self._fixed[train]
        if floats:
            self._make_live(train, [Number(name, column=name) for name in floats])
            number, conditions = self._traced(call, batch, train, check)
        kept.insert(0, _Kept(conditions, number))
        if len({each.number for each in kept}) > self._max_variants:
            others = [each.conditions for each in kept[1:]]
            said = said_of_returned(self.graphs[number], others, batch)
            raise TraceError(said or self._too_many(kept, batch))
        self._warn_of_cost(kept, batch)
        return number

    def _kept_for(
        self, batch: Mapping[str, Any], train: bool, shape: Hashable = None
    ) -> list[_Kept]:
        if shape is None:
            seen = {
                name: value
                for name, value in batch.items()
                if isinstance(value, torch.Tensor) or columns({name: value})
            }
            shape = signature(seen)
        learning = (self.learning, self._hooks.current()) if train else None
        return self._kept.setdefault((train, (learning, shape)), [])

    @property
    def learning(self) -> frozenset[str]:
        """Names of the parameters that currently require a gradient."""
        if self.watch is None or self.watch.is_open or self.watch.flags_changed:
            self.look_at_flags()
        return self._learning

    def look_at_flags(self) -> None:
        """Look up which gradients are needed and hooked, before `watch` forgets a change."""
        with disable_torch_function_of_subclasses():
            names = (n for n, p in self.inventory.parameters.items() if p.requires_grad)
            self._learning = frozenset(names)
            self._hooks = GradientHooks(self.inventory.parameters.values())

    def _traced(
        self, call: Call, batch: Mapping[str, Any], train: bool, check: Check | None
    ) -> tuple[int, Conditions]:
        """Trace forward, taking numbers that have changed before as inputs where possible."""
        new = self._new_numbers(batch, train)
        if new:
            self._make_live(train, new)
            try:
                return self._trace(call, batch, train, check)
            except HostRandomError:
                self._forget(train, new)  # what forward draws has to be known first
                raise
            except Exception as error:
                names = {number.name for number in new}
                logger.debug("%s cannot be inputs: %s", ", ".join(sorted(names)), error)
                self._fixed[train] |= names
                self._forget(train, new)
        return self._trace(call, batch, train, None)

    def _new_numbers(self, batch: Mapping[str, Any], train: bool) -> list[Number]:
        """Return the numbers that forward read and that have changed since."""
        kept = self._kept_for(batch, train)
        if not kept:
            return []
        last = kept[0].conditions
        changed = [Number(name, column=name) for name in last.changed_columns(batch)]
        changed += [
            Number(PREFIX + path, location=location) for path, location in last.changed_places()
        ]
        known = self._live[train].keys() | self._fixed[train]
        return [
            number
            for number in changed
            if number.name not in known and is_number(_value(number, batch))
        ]

    def _forget(self, train: bool, numbers: Sequence[Number]) -> None:
        for number in numbers:
            del self._live[train][number.name]

    def _make_live(self, train: bool, numbers: Sequence[Number]) -> None:
        self._live[train] |= {number.name: number for number in numbers}

    def _trace(
        self, call: Call, batch: Mapping[str, Any], train: bool, check: Check | None
    ) -> tuple[int, Conditions]:
        numbers = [n for n in self._live[train].values() if is_number(_value(n, batch))]

        options: Any = {
            "train": train,
            "rules": self._rules,
            "numbers": numbers,
            "changing": self._changing(),
        }

        def record() -> Graph:
            with waiting_for(f"tracing {size_of(dict(batch))}"):
                return trace(call, self.inventory, batch, **options)

        graph = record()
        self.seconds += graph.seconds
        if graph.droppable:
            check_left_out(call, self.inventory, batch)
        if check is not None:
            check(graph)
        places = [*graph.places, *self.inventory.outside().places]
        again = trial(record, call, self.inventory, batch, **options)
        self._look_again(self.stored.examine(graph, again, places), not train)
        self._check_conditions(graph)
        known = {each.number for each in self._kept_for(batch, train)}
        position = next((n for n in known if same(self.graphs[n], graph)), None)
        if position is None:
            self.graphs.append(graph)
            position = len(self.graphs) - 1
            for each in self.graphs:
                self._check_guards(each)
            logger.info("Traced forward for a new kind of batch in %.1f s", graph.seconds)
            give_back_memory(self.inventory.nb_bytes)
        self.stored.warn(graph)
        self._warn_of_reports(graph)
        kept = self.stored.kept(train=train)
        places = [place for place in places if place.path not in kept]
        reads = getattr(call, "reads", None) or _all_of(batch)
        held = self.stored.caches.sources  # unlike other state, it is not to change
        own = {id(t) for name, t in self.inventory.tensors.items() if name not in held}
        return position, Conditions(reads, places, numbers, batch, own)

    def _look_again(self, stored: Collection[str], train: bool) -> None:
        """Have the graphs of a phase traced again if they read what the other phase stores."""
        outside = self.inventory.outside().places if stored else []
        read = [place for each in self.graphs if each.train is train for place in each.places]
        if are_read(stored, [place.path for place in (*read, *outside)]):
            self._kept = {key: kept for key, kept in self._kept.items() if key[0] is not train}

    def _changing(self) -> frozenset[str]:
        """Return the names of tensors that are known to change in training."""
        return self.learning | {name for each in self.graphs for name in each.updated}

    def _valid(self, graph: Graph, batch: Mapping[str, Any]) -> bool:
        if graph.limits and not graph.fits(graph.tensors_of(batch)):
            return False
        if graph.guard_module is None:
            return True
        inputs = graph.inputs(self.inventory.tensors, graph.tensors_of(batch))
        with torch.no_grad(), disable_torch_function_of_subclasses():
            try:
                return graph.holds([value.item() for value in graph.guard_module(*inputs)])
            except (IndexError, RuntimeError):
                # The value is only read if earlier values are the same as in the recording.
                return False

    def _check_guards(self, graph: Graph) -> None:
        """Raise TraceError if forward branches on state that changes in training.

        Guards are checked on the host before each step, but the state is on the device.
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
                        f"forward branches on a value{f' at {guard.line}' if guard.line else ''} "
                        f"that depends on {name}, which changes in training. Use torch.where with "
                        "both results."
                    )

    def _check_conditions(self, graph: Graph) -> None:
        """Raise TraceError if batches may be skipped and a changed decision could go unnoticed."""
        if not self._may_skip:
            return
        for condition in graph.conditions:
            if not condition.is_of_finiteness:
                raise TraceError(
                    f"forward branches on a value{at(condition.line)} that changes in training. "
                    "Where it takes the other branch the graph is not valid, and "
                    "Options(on_non_finite='skip') would skip such a batch silently. Use "
                    "torch.where with both results, or on_non_finite='stop'."
                )

    def _warn_of_reports(self, graph: Graph) -> None:
        new = [line for line in graph.reported if line not in self._warned]
        if new:
            self._warned.update(new)
            logger.warning(
                "forward reads values at %s that affect neither the loss nor the gradients. What "
                "it prints, logs or keeps there comes from the batches that were traced, not from "
                "every step",
                "; ".join(new),
            )

    def _warn_of_cost(self, kept: Sequence[_Kept], batch: Mapping[str, Any]) -> None:
        if len(kept) <= _OFTEN:
            return
        names = set(_changed(kept, batch)) - self._warned
        if names:
            self._warned.update(names)
            logger.warning(
                "forward reads %s, which has had more than %d values: forward is traced again for "
                "each, which has taken %.1f s so far. Keep it in a tensor, or do not read it in "
                "forward",
                ", ".join(sorted(names)),
                _OFTEN,
                self.seconds,
            )

    def _too_many(self, kept: Sequence[_Kept], batch: Mapping[str, Any]) -> str:
        graphs = [self.graphs[number] for number in {each.number for each in kept}]
        guards = [guard for graph in graphs for guard in graph.guards]
        lines = sorted({guard.line for guard in guards if guard.line})
        places = [f"at {', '.join(lines)}"] if lines else []
        names = _changed(kept, batch)
        places += [f"in {', '.join(names)}"] if names else []
        seconds = sum(graph.seconds for graph in graphs)
        reasons = sorted({graph.exact for graph in graphs if graph.exact})
        if not reasons:
            advice = "Use torch.where with both results, or keep the value in a tensor"
        else:
            advice = (
                "Each number of rows that a mask selects needs its own graph here, because "
                f"{'; '.join(reasons)}. Keep all rows and mask the terms of the sum, as in "
                "(loss * mask).sum() / mask.sum(), or read a count with x.size(0) instead of len(x)"
            )
        if any(name.startswith(host_draws.PREFIX) for name in batch):
            advice += ". A number drawn by numpy.random or random is used without float() or int()"
        return (
            f"forward branches on values of the batch {' and '.join(places)} in more than "
            f"{self._max_variants} ways: {len(graphs)} graphs were traced in {seconds:.1f} s, and "
            f"each was also compiled. {advice}, or raise Options(max_variants=...) at the same "
            "cost for each further graph."
        )


def _value(number: Number, batch: Mapping[str, Any]) -> Any:
    try:
        return number.value(batch)
    except KeyError:
        return None


def _changed(kept: Sequence[_Kept], batch: Mapping[str, Any]) -> list[str]:
    """Return the names of columns and places whose values differ from those read before."""
    names: dict[str, None] = {}
    for each in kept[1:]:
        names |= dict.fromkeys(map("column {!r}".format, each.conditions.changed_columns(batch)))
        names |= dict.fromkeys(place.path for place in each.conditions.changed_places())
    return list(names)


def _all_of(batch: Mapping[str, Any]) -> ColumnReads:
    """Return the reads assumed of a forward that was not watched: all columns."""
    reads = ColumnReads()
    reads.values.update(batch)
    return reads
