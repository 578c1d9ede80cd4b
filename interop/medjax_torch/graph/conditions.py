"""Truth values that forward reads and that change in training, checked in the step itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


@dataclass(frozen=True)
class Condition:
    """A truth value that must be the same in a step as in the recording of its graph.

    Attributes
    ----------
    expected : bool
        The value when the graph was recorded.
    line : str
        The line of forward that read it, ``""`` if unknown.
    raises : bool
        Whether forward raises an error if the value is the opposite.
    is_of_finiteness : bool
        Whether the value depends only on whether numbers are finite.
    """

    expected: bool
    line: str
    raises: bool
    is_of_finiteness: bool


_THROUGH = frozenset(
    operation
    for packet in (
        *(aten.any, aten.all, aten.logical_not, aten.bitwise_not, aten.bitwise_or, aten.clone),
        *(aten.bitwise_and, aten.logical_or, aten.logical_and, aten.view, aten.reshape, aten.abs),
        *(aten.squeeze, aten.unsqueeze, aten.sum, aten.mul, aten.detach, aten.alias),
        *(aten._to_copy, aten.view_copy, aten.ne, aten.eq, aten.gt, aten.ge, aten.lt, aten.le),
    )
    for operation in (getattr(packet, name) for name in packet.overloads())
)
_ASKING = (aten.isnan.default, aten.isinf.default)


def is_of_finiteness(node: fx.Node) -> bool:
    """Return whether a truth value is computed only by ``isnan``, ``isinf`` and ``isfinite``."""
    pending, seen = [node], 0
    while pending:
        latest = pending.pop()
        if _asks(latest):
            seen += 1
        elif latest.op == "call_function" and latest.target in _THROUGH and _is_exact(latest):
            pending += latest.all_input_nodes
        else:
            return False
    return seen > 0


def _asks(node: fx.Node) -> bool:
    """Return whether a node tests finiteness, also as torch writes it: x != x, abs(x) == inf."""
    if node.target in _ASKING:
        return True
    if node.target in (aten.eq.Tensor, aten.ne.Tensor):
        return node.args[0] is node.args[1]
    if node.target in (aten.eq.Scalar, aten.ne.Scalar):
        return node.args[1] in (float("inf"), float("-inf"))
    return False


def _is_exact(node: fx.Node) -> bool:
    value: Any = node.meta.get("val")
    return isinstance(value, torch.Tensor) and not value.is_floating_point()
