"""Distinct values, selected by a mask, since the tracer follows masks but not `torch.unique`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def _unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Compute `torch.unique`, with torch's own function for rows or columns."""
    if dim is not None and input.dim() > 1:
        return torch.unique(input, sorted, return_inverse, return_counts, dim)
    ascending, order = input.detach().reshape(-1).sort()
    values, groups, counts = _runs(ascending)
    inverse = torch.empty_like(groups).scatter(0, order, groups).reshape(input.shape)
    return _chosen(values, (return_inverse, inverse), (return_counts, counts))


def _unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """Compute `torch.unique_consecutive`, with torch's own function for rows or columns."""
    if dim is not None and input.dim() > 1:
        return torch.unique_consecutive(input, return_inverse, return_counts, dim)
    values, groups, counts = _runs(input.detach().reshape(-1))
    inverse = groups.reshape(input.shape)
    return _chosen(values, (return_inverse, inverse), (return_counts, counts))


def _runs(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the value of each run of equal values, the run of each element, and their lengths."""
    starts = torch.cat([torch.ones_like(x[:1], dtype=torch.bool), x[1:] != x[:-1]])
    groups = starts.cumsum(0) - 1
    values = x[starts]
    lengths = torch.zeros_like(values, dtype=torch.int64)
    return values, groups, lengths.scatter_add(0, groups, torch.ones_like(groups))


def _chosen(values: Tensor, *results: tuple[bool, Tensor]) -> Any:
    wanted = [tensor for is_wanted, tensor in results if is_wanted]
    return (values, *wanted) if wanted else values


DISTINCT: Mapping[Callable[..., Any], Callable[..., Any]] = {
    torch.unique: _unique,
    Tensor.unique: _unique,
    torch.unique_consecutive: _unique_consecutive,
    Tensor.unique_consecutive: _unique_consecutive,
}
"""The functions of torch for distinct values, and their replacements."""
