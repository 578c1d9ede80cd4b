"""The bounds between which the integers of a graph lie."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from medjax_torch.graph.interval_rules import (
    COUNTED,
    INDEX_ONLY,
    INT32,
    INT64,
    OF_FLOATS,
    RULES,
    Interval,
    size_of,
    union,
)
from medjax_torch.graph.operations import CHOICES, MOVES, name_of
from medjax_torch.torch_internals import pytree

_LIMITS = {
    torch.bool: (0, 1),
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: INT32,
    torch.int64: INT64,
}


def intervals(
    graph: fx.Graph, known: Mapping[fx.Node, Interval]
) -> dict[fx.Node, list[Interval | None]]:
    """Return the bounds of every result of every node, None for results that are not integers.

    Parameters
    ----------
    graph : fx.Graph
        A functional graph, with the traced results in the nodes' ``meta["val"]``.
    known : mapping of fx.Node to (int, int)
        Bounds of inputs and constants. All others may hold anything that fits into 32 bits.
    """
    results: dict[fx.Node, list[Interval | None]] = {}
    for node in graph.nodes:
        if node.op == "output":
            continue
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_floating_point():
            results[node] = [None]
            continue
        traced = pytree.tree_leaves(value)
        bounds: list[Interval | None]
        if node in known:
            bounds = [known[node]]
        elif not any(is_integer(value) for value in traced):
            bounds = [None] * len(traced)
        else:
            try:
                bounds = _within(_bounds(node, results), traced)
            except (TypeError, IndexError, AttributeError):
                bounds = _within([INT32], traced)  # arguments that no rule covers
        results[node] = bounds
    return results


def is_integer(value: Any) -> bool:
    """Return whether a traced value is an integer, or a tensor of integers or truth values."""
    if isinstance(value, Tensor):
        return not (value.is_floating_point() or value.is_complex())
    return isinstance(value, torch.SymInt | int)


def exceeds(node: fx.Node, bounds: Iterable[Interval | None]) -> bool:
    """Return whether a node may return a 64-bit integer that does not fit into 32 bits."""
    values = pytree.tree_leaves(node.meta.get("val"))
    return any(
        bound is not None
        and _is_long(value)
        and not (INT32[0] <= bound[0] and bound[1] <= INT32[1])
        for value, bound in zip(values, bounds, strict=True)
    )


def number(value: int) -> Interval:
    """Return the bounds of a constant; the limits of int64 are replaced by those of int32."""
    value = min(max(value, INT32[0]), INT32[1]) if value in INT64 else value
    return value, value


def _is_long(value: Any) -> bool:
    """Return whether integers have 64 bits; shorter ones wrap in torch as they do in JAX."""
    if isinstance(value, Tensor):
        return value.dtype == torch.int64
    return isinstance(value, torch.SymInt | int) and not isinstance(value, bool)


def _within(bounds: list[Interval], traced: Sequence[Any]) -> list[Interval | None]:
    """Return the bounds of values, or the limits of their type where a value may wrap."""
    result: list[Interval | None] = []
    for value, bound in itertools.zip_longest(traced, bounds[: len(traced)], fillvalue=bounds[-1]):
        if not is_integer(value):
            result.append(None)
            continue
        if isinstance(value, Tensor) and value.dtype == torch.bool:
            result.append((0, 1))
            continue
        dtype = value.dtype if isinstance(value, Tensor) else torch.int64
        low, high = _LIMITS.get(dtype, INT32)
        fits = low <= bound[0] and bound[1] <= high
        result.append(bound if fits else (low, high))
    return result


def _bounds(node: fx.Node, results: Mapping[fx.Node, list[Interval | None]]) -> list[Interval]:
    """Return the bounds of each result; the last bounds also apply to any further results."""
    name = name_of(node)
    if name == "getitem" and isinstance(node.args[1], int):
        source = results[node.args[0]]  # type: ignore[index]
        bound = source[node.args[1]] if node.args[1] < len(source) else None
        return [bound or INT32]

    def of(value: Any) -> Interval | None:
        """Return the bounds of an argument, or of all its elements if it is a list."""
        if isinstance(value, fx.Node):
            return union(bound for bound in results[value] if bound is not None)
        if isinstance(value, int):
            return number(value)
        if isinstance(value, list | tuple):
            return union(bound for bound in map(of, value) if bound is not None)
        return None

    args = tuple(node.args)
    if name in INDEX_ONLY:
        return [(0, max(map(size_of, node.all_input_nodes), default=0))]
    if name in MOVES or name in CHOICES:
        return _handed_on(name, node, of)
    rule = RULES.get(name)
    needed = [of(value) for value in args]
    if rule is None:
        places = (0, max(map(size_of, node.all_input_nodes), default=0))
        return [union([*(bound or COUNTED for bound in needed), places]) or COUNTED]
    if any(isinstance(v, fx.Node) and of(v) is None for v in args) and name not in OF_FLOATS:
        return [COUNTED]
    return [rule(node, needed)]


def _handed_on(name: str, node: fx.Node, of: Callable[[Any], Interval | None]) -> list[Interval]:
    """Return the bounds of results that are taken from the arguments, and of their positions."""
    sources: list[Any] = [*node.args]
    values: list[Any] = sources[:1]
    if name in ("where", "masked_fill", "masked_scatter"):
        values = sources[1:] if name == "where" else [sources[0], sources[2]]
    elif name in (
        "clamp",
        "clamp_min",
        "clamp_max",
        "hardtanh",
        "maximum",
        "minimum",
        "fill",
    ) or name in ("sym_max", "sym_min", "copy"):
        values = sources
    elif name in ("full", "full_like", "new_full"):
        values = sources[1:2] if name != "new_full" else sources[2:3]
    elif name in ("slice_scatter", "select_scatter", "diagonal_scatter", "as_strided_scatter"):
        values = sources[:2]
    elif name == "scatter":
        values = [sources[0], sources[3]]
    elif name == "constant_pad_nd":
        values = [sources[0], sources[2] if len(sources) > 2 else 0]
    elif name in ("tril", "triu"):
        values = [sources[0], 0]
    values += [
        node.kwargs[key] for key in ("min", "max", "value", "fill_value") if key in node.kwargs
    ]
    bound = union(known for known in map(of, values) if known is not None)
    places = (0, max(map(size_of, node.all_input_nodes), default=0))
    clear = bound if bound is not None else COUNTED
    if name in ("clamp", "clamp_min", "clamp_max", "hardtanh", "minimum", "maximum", "relu"):
        clear = _clamped(name, node, of) or clear
    if name in ("max", "min", "sort", "topk", "cummax", "cummin", "median", "kthvalue"):
        return [clear, places]
    return [clear]


def _clamped(name: str, node: fx.Node, of: Callable[[Any], Interval | None]) -> Interval | None:
    args = (*node.args, None, None)
    x = of(args[0])
    if x is None:
        return None
    low: Any = None
    high: Any = None
    if name in ("clamp", "hardtanh"):
        low, high = node.kwargs.get("min", args[1]), node.kwargs.get("max", args[2])
    elif name in ("clamp_min", "maximum"):
        low = args[1]
    elif name in ("clamp_max", "minimum"):
        high = args[1]
    else:
        low = 0
    for limit, choose in ((low, max), (high, min)):
        bound = of(limit) if limit is not None else None
        if limit is not None and bound is None:
            return None
        if bound is not None:
            x = choose(x[0], bound[0]), choose(x[1], bound[1])
    return x
