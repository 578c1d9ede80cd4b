"""How much of a difference rounding explains, measured in torch by perturbing each operation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state import Inventory
from medjax_torch.graph import Graph
from medjax_torch.verification.comparison import differences, shifted
from medjax_torch.verification.graph_in_torch import outcome_in_torch
from medjax_torch.verification.reference import Outcome

SAMPLES = 3
"""Number of random perturbations; the largest change counts."""

AMPLIFIED = 4
"""Factor by which a difference may exceed the measured change of a result."""

_LIMIT = 0.5
"""The largest difference that is excused, unless all of the result is rounding."""

_IN_SUMS = 8
"""Roundings in one operation of float32 or wider, as a long sum is a single operation.

16-bit types are accumulated in float32, so they are rounded once.
"""


def roundings(dtypes: Iterable[torch.dtype]) -> dict[torch.dtype, float]:
    """Return the relative rounding error of each dtype; float64 is taken to be float32."""
    shares = {}
    for dtype in dtypes:
        if dtype.is_floating_point or dtype.is_complex:
            short = dtype in (torch.float16, torch.bfloat16)
            eps = torch.finfo(dtype if short else torch.float32).eps / 2
            shares[dtype] = eps if short else _IN_SUMS * eps
    return shares


def explained(
    graph: Graph, inventory: Inventory, batch: Mapping[str, Any], expected: Outcome
) -> dict[str, float]:
    """Return the largest difference that rounding explains for each result.

    The graph is evaluated in float64, once unchanged and several times with the result of every
    operation perturbed by a rounding error, randomly up or down. This measures the noise of a
    gradient whose true value is 0, such as a sum of numbers that cancel; perturbing only the
    arguments would not.

    Parameters
    ----------
    graph : Graph
        The graph of forward, and in training of backward.
    inventory : Inventory
        The component's tensors.
    batch : mapping of str to value
        A batch for which the graph is valid.
    expected : Outcome
        The outcome to which differences are relative.

    Returns
    -------
    dict of str to float
        Relative differences by `Difference.name`.
    """
    # If forward uses float64 on purpose, computing in float32 on the device is not excused.
    shares = roundings(_dtypes(graph) - {torch.float64, torch.complex128})
    try:
        base = outcome_in_torch(graph, inventory, batch, wide=True)
        is_wide = True
    except Exception:  # an operation that torch does not have in float64
        base, is_wide = outcome_in_torch(graph, inventory, batch), False
    largest: dict[str, float] = {}
    for seed in range(SAMPLES):
        sample = outcome_in_torch(
            graph, inventory, batch, wide=is_wide, roundings=shares, seed=seed
        )
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
