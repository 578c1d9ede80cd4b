"""Columns of a batch that are used as indices, and the range they have to be in.

torch raises where an index is out of range. On an accelerator nothing can raise: what an index out
of range reads is NaN there, which stops the run, but only the host can say which column it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from medjax_torch.graph.errors import at, line_of_stack
from medjax_torch.graph.record import Graph

aten = torch.ops.aten

_SAME_VALUES = frozenset(
    {
        aten._to_copy.default,
        aten.alias.default,
        aten.clone.default,
        aten.expand.default,
        aten.permute.default,
        aten.select.int,
        aten.slice.Tensor,
        aten.squeeze.dim,
        aten.squeeze.dims,
        aten.unsqueeze.default,
        aten.view.default,
        aten.view_copy.default,
    }
)
"""Operations whose result holds values of their first argument and no others."""


class Bound(NamedTuple):
    """A range that the integers of a column have to be in.

    Attributes
    ----------
    column : str
        Path of the column.
    low, high : int
        The first value in the range, and the first beyond it.
    ignored : tuple of int
        Values outside of the range that are allowed.
    line : str
        Where forward uses the column, ``""`` if unknown.
    """

    column: str
    low: int
    high: int
    ignored: tuple[int, ...]
    line: str


def bounds(graph: Graph) -> tuple[Bound, ...]:
    """Return the ranges of the columns that a graph uses as indices, unchanged by arithmetic."""
    placeholders = graph.module.graph.find_nodes(op="placeholder")
    first = len(placeholders) - len(graph.columns)
    columns = dict(zip(placeholders[first:], graph.columns, strict=True))
    found: dict[tuple[str, int, int, tuple[int, ...]], Bound] = {}
    for node in graph.module.graph.nodes:
        for index, low, high in _indices(node):
            source, ignored = _source(index)
            if source in columns:
                line = line_of_stack(node.stack_trace)
                bound = Bound(columns[source], low, high, ignored, line)
                found.setdefault(bound[:4], bound)
    return tuple(found.values())


def check_ranges(ranges: tuple[Bound, ...], columns: Mapping[str, Tensor]) -> None:
    """Check the columns of a batch.

    Raises
    ------
    ValueError
        If a value is out of its range; the message names the column, the value and the line.
    """
    for bound in ranges:
        column = columns[bound.column]
        if not column.numel():
            continue
        low, high = (int(value) for value in torch.aminmax(column))
        if bound.low <= low and high < bound.high:
            continue
        outside = (column < bound.low) | (column >= bound.high)
        for value in bound.ignored:
            outside &= column != value
        if outside.any():
            msg = (
                f"column {bound.column!r} holds {int(column[outside][0])}, which is used as an "
                f"index{at(bound.line)}; expected {bound.low} to {bound.high - 1}"
                f"{''.join(f' or {value}' for value in bound.ignored)}. Compare the number of "
                "labels, or the size of the vocabulary, with the model's"
            )
            raise ValueError(msg)


def _indices(node: fx.Node) -> Iterator[tuple[Any, int, int]]:
    """Yield the indices of an operation with the range that torch allows."""
    target, args = node.target, node.args
    if target is aten.embedding.default:
        yield args[1], 0, _shape(args[0])[0]
    elif target in (aten.index_select.default, aten.gather.default):
        dim: Any = args[1]
        if _shape(args[0]):
            yield args[2], 0, _shape(args[0])[dim]
    elif target is aten.index.Tensor:
        listed: Any = args[1]
        for dim, index in enumerate(listed):
            if index is not None and _is_integer(index):
                size = _shape(args[0])[dim]
                yield index, -size, size


def _source(node: Any) -> tuple[Any, tuple[int, ...]]:
    """Follow the values of an index back, and collect what is replaced on the way.

    A loss with `ignore_index` is ``where(target != ignore_index, target, 0)`` in core aten.
    """
    ignored: tuple[int, ...] = ()
    while isinstance(node, fx.Node) and node.op == "call_function":
        if node.target in _SAME_VALUES:
            node = node.args[0]
        elif node.target is aten.where.self and _excluded(node) is not None:
            ignored = (*ignored, *([value] if (value := _excluded(node)) is not None else []))
            node = node.args[1]
        else:
            break
    return node, ignored


def _excluded(where: fx.Node) -> int | None:
    """Return the value that ``where(x != value, x, other)`` replaces, None if it is another."""
    condition, kept = where.args[0], where.args[1]
    if not isinstance(condition, fx.Node) or condition.target is not aten.ne.Scalar:
        return None
    value: Any = condition.args[1]
    same = _source(condition.args[0])[0] is _source(kept)[0]
    return int(value) if same else None


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(node.meta["val"].shape)


def _is_integer(node: Any) -> bool:
    dtype = node.meta["val"].dtype
    return not dtype.is_floating_point and dtype not in (torch.bool, torch.uint8)
