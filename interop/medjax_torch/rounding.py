"""How much of a difference roundings explain: asked of torch, with each result moved a little."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medjax_torch.comparison import differences, shifted
from medjax_torch.graph import Graph
from medjax_torch.graph_in_torch import outcome_in_torch
from medjax_torch.modules import Found
from medjax_torch.reference import Outcome

SAMPLES = 3
"""How often roundings are drawn; the largest move counts."""

AMPLIFIED = 4
"""How many times what a result moves with such roundings is excused."""

_LIMIT = 0.5
"""No larger difference of a result is excused, unless all of the result is rounding."""

_IN_SUMS = 8
"""Of float32 and wider, an operation errs by some roundings: a long sum is one operation.

Sums of 16-bit types are taken in float32, so that one rounding is all.
"""


def roundings(dtypes: Iterable[torch.dtype]) -> dict[torch.dtype, float]:
    """Return by which part of itself a result of each type may be wrong; float64 is float32."""
    shares = {}
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            short = dtype in (torch.float16, torch.bfloat16)
            eps = torch.finfo(dtype if short else torch.float32).eps / 2
            shares[dtype] = eps if short else _IN_SUMS * eps
    return shares


def explained(
    graph: Graph, found: Found, batch: Mapping[str, Any], expected: Outcome
) -> dict[str, float]:
    """Return how large a difference of each result roundings explain, by `Difference.name`.

    The graph is evaluated in float64, once as it is and some times with the result of every
    operation moved by a rounding, at random up or down. So a gradient whose true value is 0, for
    instance a sum of numbers that cancel, shows how large its noise is, which no comparison of
    torch with itself on moved arguments does.

    Parameters
    ----------
    graph : Graph
        The graph of forward, and in training of backward.
    found : Found
        The component's content.
    batch : mapping of str to value
        A batch for which the graph is valid.
    expected : Outcome
        To which differences are relative.
    """
    # What forward computes in float64 on purpose is not excused for being float32 on the device.
    shares = roundings(_dtypes(graph) - {torch.float64, torch.complex128})
    try:
        base = outcome_in_torch(graph, found, batch, wide=True)
        is_wide = True
    except Exception:  # an operation that torch has not in float64
        base, is_wide = outcome_in_torch(graph, found, batch), False
    largest: dict[str, float] = {}
    for seed in range(SAMPLES):
        sample = outcome_in_torch(graph, found, batch, wide=is_wide, roundings=shares, seed=seed)
        moved = shifted(expected, sample, base)
        for one in differences(moved, expected, ("torch after rounding", "torch")):
            if math.isfinite(one.relative):
                largest[one.name] = max(largest.get(one.name, 0.0), one.relative)
    return {name: _allowed(relative) for name, relative in largest.items()}


def _allowed(relative: float) -> float:
    excused = AMPLIFIED * relative
    return excused if relative >= 1 else min(_LIMIT, excused)


def _dtypes(graph: Graph) -> set[torch.dtype]:
    values = (node.meta.get("val") for node in graph.module.graph.nodes)
    return {value.dtype for value in values if isinstance(value, Tensor)}
