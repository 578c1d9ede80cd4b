"""Find the values of a batch that are indices, and the ranges in which torch accepts them.

torch raises if an index is out of range; a compiled graph cannot. Indices that depend on the batch
alone are checked before the graph runs. Indices that depend on parameters are not: for them the
lowerings return NaN. So it is with what else operations require of integers, such as divisors other
than 0 (see `required`). Lengths that torch requires to be sorted are checked along with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import TraceError, at, line_of_stack
from medjax_torch.graph.graph import Graph
from medjax_torch.graph.guards import ancestry, is_random
from medjax_torch.graph.packed import SORTED
from medjax_torch.graph.required import INDEX, LEAST, MOST, Kind, required

aten = torch.ops.aten


class Bound(NamedTuple):
    """The range required of an index, or of another integer.

    Attributes
    ----------
    columns : tuple of str
        The batch columns from which it is computed.
    low, high : int
        The least and the largest value allowed.
    ignored : int or None
        Another value that the column may hold, for which nothing is looked up.
    what : str
        The torch operation that takes the index.
    line : str
        The component's line, ``""`` if unknown.
    column : str or None
        A column whose values, if in range themselves, prove the index to be; None if there is none.
    kind : Kind
        What it is that has to be in range.
    """

    columns: tuple[str, ...]
    low: int
    high: int
    ignored: int | None
    what: str
    line: str
    column: str | None = None
    kind: Kind = INDEX

    def allows(self, values: Tensor) -> bool:
        """Return whether all values are allowed."""
        if not values.numel():
            return True
        if self.kind.excluded is not None and bool((values == self.kind.excluded).any()):
            return False
        if (self.low, self.high) == (LEAST, MOST):
            return True
        least, largest = torch.aminmax(values)
        return self.low <= int(least) and int(largest) <= self.high


@dataclass(frozen=True)
class Bounds:
    """The indices that a graph computes from the batch alone.

    Attributes
    ----------
    module : fx.GraphModule
        Takes the columns in `columns` and returns a list of indices, one for each of `each`.
    columns : tuple of str
        Names of the inputs.
    each : tuple of Bound
        The range required of each index.
    """

    module: fx.GraphModule
    columns: tuple[str, ...]
    each: tuple[Bound, ...]


def bounds(graph: Graph) -> Bounds:
    """Find the indices of a graph that are computed from batch columns by integer operations.

    Examples are token ids, labels without the ignored ones, and positions counted from a mask.

    Raises
    ------
    TraceError
        If lengths must be sorted and do not depend on the batch alone.
    """
    placeholders = graph.module.graph.find_nodes(op="placeholder")
    first = len(placeholders) - len(graph.columns)
    columns = dict(zip(placeholders[first:], graph.columns, strict=True))
    narrowest: dict[tuple[fx.Node, Kind], Bound] = {}
    for node in graph.module.graph.nodes:
        if node.target is SORTED:
            _check_lengths(node, columns)
        # No lines are recorded for the backward pass; it uses the indices of the forward pass.
        if not node.stack_trace:
            continue
        for index, low, high, kind in required(node):
            if isinstance(high, torch.SymInt):
                continue  # within what was selected
            origin = index if kind.measure else _origin(index)
            sources = ancestry(origin)
            if not _is_of_batch(sources, columns):
                continue
            names = tuple(name for column, name in columns.items() if column in sources)
            line = line_of_stack(node.stack_trace)
            bound = Bound(names, low, high, None, str(node.target), line, None, kind)
            if not kind.measure:
                own = columns.get(_source(origin, bound))
                bound = bound._replace(ignored=_ignored(origin), column=own)
            narrowest[origin, kind] = _narrower(narrowest.get((origin, kind)), bound)
    module = _part(graph.module, [origin for origin, _ in narrowest], columns)
    return Bounds(module, tuple(columns.values()), tuple(narrowest.values()))


def check_ranges(bounds: Bounds, columns: Mapping[str, Tensor | np.ndarray]) -> None:
    """Check that the indices in a batch are within their ranges.

    Parameters
    ----------
    bounds : Bounds
        The indices of the graph that will run on the batch.
    columns : mapping of str to Tensor or array
        The tensors of the batch by path, with the shapes that the graph was traced with.

    Raises
    ------
    ValueError
        If an index is out of range.
    RuntimeError
        As in torch, if lengths must be sorted and are not.
    """
    if all(_is_within(bound, columns) for bound in bounds.each):
        return
    for bound in bounds.each:  # before anything is computed with them, which may raise
        if bound.ignored is None and bound.column and not _is_within(bound, columns):
            column = torch.as_tensor(columns[bound.column]).reshape(-1)
            raise ValueError(_message(bound, column, columns))
    tensors = [torch.as_tensor(columns[name]).detach().cpu() for name in bounds.columns]
    try:
        with torch.no_grad():
            values = bounds.module(*tensors)
    except RuntimeError as error:
        raise RuntimeError(f"{error}{_lengths_told(bounds, tensors)}") from None
    for bound, index in zip(bounds.each, values, strict=True):
        measured = bound.kind.measure(index) if bound.kind.measure else index
        if not bound.allows(measured):
            raise ValueError(_message(bound, measured.reshape(-1), columns))


def _check_lengths(node: fx.Node, columns: Mapping[fx.Node, str]) -> None:
    """Raise TraceError if the host cannot check before a step whether lengths are sorted."""
    sources = ancestry(node)
    depends = any(source.op == "placeholder" or is_random(source) for source in sources)
    if depends and not _is_of_batch(sources, columns):
        raise TraceError(
            f"pack_padded_sequence{at(line_of_stack(node.stack_trace))} requires sorted lengths, "
            "but these depend on parameters or on floats and so cannot be checked before each "
            "step. Pass enforce_sorted=False, which gives the same result, or compute the lengths "
            "in collate."
        )


def _lengths_told(bounds: Bounds, tensors: list[Tensor]) -> str:
    """Return where the lengths that may be unsorted are used, and their values in the batch."""
    inputs = bounds.module.graph.find_nodes(op="placeholder")
    told = []
    for node in bounds.module.graph.nodes:
        if node.target is SORTED:
            behind = ancestry(node)
            contents = [
                f"column {name!r} holds {value.tolist()}" if value.ndim < 2 else f"column {name!r}"
                for each, name, value in zip(inputs, bounds.columns, tensors, strict=True)
                if each in behind
            ]
            told.append(f" Called{at(line_of_stack(node.stack_trace))}; {', '.join(contents)}.")
    return "".join(told)


def _is_within(bound: Bound, columns: Mapping[str, Tensor | np.ndarray]) -> bool:
    """Return whether the column alone proves an index to be in range, without computing it."""
    if bound.column is None:
        return False
    return bound.allows(torch.as_tensor(columns[bound.column]))


def _message(bound: Bound, values: Tensor, columns: Mapping[str, Tensor | np.ndarray]) -> str:
    outside = (values < bound.low) | (values > bound.high)
    if bound.kind.excluded is not None:
        outside = values == bound.kind.excluded
    value = int(values[outside][0])
    names = " and ".join(repr(name) for name in bound.columns)
    says = f"The {bound.kind.name} computed from {names} is {value}"
    column = torch.as_tensor(columns[bound.columns[0]])
    if len(bound.columns) == 1 and not bound.kind.measure and value in column:
        place = (column == value).nonzero()[0].tolist()
        says = f"Column {names} holds {value} at {place}"
    also = "" if bound.ignored is None else f", or {bound.ignored}, which is ignored,"
    return (
        f"{says}; expected {_expected(bound)}{also} for {bound.what}{at(bound.line)}. "
        f"{bound.kind.advice}"
    )


def _expected(bound: Bound) -> str:
    if bound.kind.excluded is not None:
        return f"a number other than {bound.kind.excluded}"
    if bound.low == bound.high:
        return str(bound.low)
    return f"{bound.low} or more" if bound.high == MOST else f"{bound.low} to {bound.high}"


_SAME_VALUES = (
    aten._to_copy.default,
    aten.clone.default,
    aten.expand.default,
    aten.permute.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.view.default,
    aten.view_copy.default,
)


def _origin(index: fx.Node) -> fx.Node:
    """Return the node that has the same values before any change of shape."""
    source: Any = index
    while source.target in _SAME_VALUES and not _dtype(source.args[0]).is_floating_point:
        source = source.args[0]
    result: fx.Node = source
    return result


def _is_of_batch(sources: set[fx.Node], columns: Mapping[fx.Node, str]) -> bool:
    """Return whether a value depends only on columns and integer operations, cheap to repeat."""
    if not any(source in columns for source in sources):
        return False
    return all(
        source in columns if source.op == "placeholder" else _is_integral(source)
        for source in sources
    )


def _is_integral(node: fx.Node) -> bool:
    value = node.meta.get("val")
    values = value if isinstance(value, tuple | list) else [value]
    if node.op == "get_attr" or is_random(node):
        return False
    return all(
        isinstance(each, Tensor) and not (each.is_floating_point() or each.is_complex())
        for each in values
    )


def _source(origin: fx.Node, bound: Bound) -> fx.Node:
    """Return a node whose values, if in range themselves, prove those of `origin` to be.

    If `origin` replaces an ignored value by a number in range, such as the 0 of torch's losses, it
    is the tensor before that replacement; otherwise it is `origin` itself.
    """
    if _ignored(origin) is None:
        return origin
    kept: Any
    instead: Any
    _, kept, instead = origin.args
    number = instead.args[0] if instead.target is aten.scalar_tensor.default else None
    proved = isinstance(number, int) and bound.allows(torch.tensor(number))
    return _origin(kept) if proved else origin


def _ignored(origin: fx.Node) -> int | None:
    """Return the value that is replaced if the index is ``where(x != value, x, ...)``."""
    if origin.target is aten.where.self:
        condition: Any = origin.args[0]
        if condition.target is aten.ne.Scalar and condition.args[0] is origin.args[1]:
            return int(condition.args[1])
    return None


def _narrower(known: Bound | None, bound: Bound) -> Bound:
    if known is None:
        return bound
    column = known.column if known.column == bound.column else None
    return known._replace(
        low=max(known.low, bound.low), high=min(known.high, bound.high), column=column
    )


def _part(
    module: fx.GraphModule, outputs: list[fx.Node], columns: Mapping[fx.Node, str]
) -> fx.GraphModule:
    """Return the part of a graph that computes `outputs` from all columns, without repetition."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    known: dict[tuple[Any, str], fx.Node] = {}
    wanted = ancestry(*outputs)
    for node in module.graph.nodes:
        if node in columns:
            copies[node] = graph.node_copy(node)
        elif node in wanted:
            inputs = fx.node.map_arg((node.args, node.kwargs), copies.__getitem__)
            same = known.get((node.target, str(inputs)))
            copies[node] = same or graph.node_copy(node, copies.__getitem__)
            known.setdefault((node.target, str(inputs)), copies[node])
    graph.output([copies[node] for node in outputs])
    return fx.GraphModule(module, graph)


def _dtype(node: Any) -> Any:
    return node.meta["val"].dtype
