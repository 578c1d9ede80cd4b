"""Operators that draw random numbers for tensors whose first size is counted."""

from __future__ import annotations

import torch
from torch.fx import Node

from medjax_torch.graph.sizes import lengths
from medjax_torch.lowerings.counted.table import as_it_is, is_plain, need, value_of

aten = torch.ops.aten


def _outermost(node: Node) -> None:
    """Refuse unless padding does not shift the draws: a counted size has to come first."""
    values = value_of(node)
    for value in values if isinstance(values, tuple | list) else [values]:
        sizes = [size for size in lengths(value) if size != 1]
        need(all(map(is_plain, sizes[1:])), node, "draws random numbers along a size that varies")


as_it_is(
    aten.bernoulli.Tensor,
    aten.bernoulli.default,
    aten.bernoulli.p,
    aten.native_dropout.default,
    aten.rand.default,
    aten.rand_like.default,
    aten.randn.default,
    aten.randn_like.default,
    aten.uniform.default,
    check=_outermost,
)
