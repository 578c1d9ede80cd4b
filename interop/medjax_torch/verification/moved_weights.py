"""Copies of a component's tensors at other weights, such as training may reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from medjax_torch.component_state import Inventory

_SHARE = 0.3
"""How far weights move, as a share of their root mean square."""

_LEAST = 0.1
"""The least distance that a bias, a gate or a scale moves, as training moves them from 0."""


_FAR = (1_000, 1_000_000)
"""Values that a counter in a buffer gets, in turn."""


def moved(
    inventory: Inventory,
    gradients: Mapping[str, np.ndarray],
    seed: int,
    counters: Collection[str] = (),
) -> Inventory:
    """Return copies of a component's tensors in which every floating-point number is moved.

    Biases and gates leave 0, and ReLUs leave their kink, so that a property of the new weights
    does not depend on these special values. Arrays of positive numbers only, such as scales and
    running variances, stay positive. Zeros among other numbers stay 0 if no gradient reaches them,
    as in masks and in the embedding of padding.

    Parameters
    ----------
    inventory : Inventory
        The component's tensors. They are not changed.
    gradients : mapping of str to array
        The known gradients of parameters.
    seed : int
        Seed of the random moves.
    counters : collection of str
        Names of buffers that count, and switch a term on or off after many steps: they get a value
        that they may have by then.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: _parameter(value.detach(), gradients.get(name), generator).requires_grad_(
            value.requires_grad
        )
        for name, value in inventory.parameters.items()
    }
    far = _FAR[seed % len(_FAR)]
    buffers = {
        name: torch.full_like(value, far)
        if name in counters
        else _buffer(value.detach(), generator)
        for name, value in inventory.buffers.items()
    }
    return dataclasses.replace(inventory, parameters=parameters, buffers=buffers)


def _parameter(value: Tensor, gradient: np.ndarray | None, generator: torch.Generator) -> Tensor:
    if not _moves(value):
        return value.clone()
    wide = value.float()
    if wide.min() > 0:
        return _positive(wide, generator).to(value.dtype)
    scale = _SHARE * float(torch.linalg.vector_norm(wide)) / math.sqrt(wide.numel())
    fan_in = math.prod(value.shape[1:])
    scale = max(scale, _LEAST if value.ndim < 2 else _SHARE / math.sqrt(fan_in))
    other = _normal(wide, generator).mul_(scale).add_(wide)
    if 0 < wide.count_nonzero() < wide.numel():
        zeros = wide == 0
        reached = torch.zeros_like(zeros)
        if gradient is not None:
            reached = torch.from_numpy(np.asarray(gradient != 0)).to(value.device)
        other = torch.where(zeros & ~reached, wide, other)
    return other.to(value.dtype)


def _buffer(value: Tensor, generator: torch.Generator) -> Tensor:
    """Return other numbers of the same sign; zeros move only if there is nothing else."""
    if not _moves(value):
        return value
    wide = value.float()
    if (wide == 0).all():
        other = _LEAST * _normal(wide, generator).abs()
    else:
        other = wide * (_SHARE * _normal(wide, generator)).exp()
    return other.to(value.dtype)


def _positive(wide: Tensor, generator: torch.Generator) -> Tensor:
    other = wide * (_SHARE * _normal(wide, generator)).exp()
    if float(wide.max()) < _LEAST:
        other = other + _LEAST * _normal(wide, generator).abs()
    return other


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device)


def _moves(value: Tensor) -> bool:
    return value.is_floating_point() and value.layout == torch.strided and value.numel() > 0
