"""Copies of a component's tensors at other weights, such as training may reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medjax_torch.component_state import Inventory

_SHARE = 0.3
"""How far weights move, as a share of their root mean square."""

_LEAST = 0.1
"""The least distance that a bias, a gate or a scale moves, as training moves them from 0."""


_TURNED = 100.0
"""The largest number that changes its sign."""


def moved(
    inventory: Inventory,
    gradients: Mapping[str, np.ndarray],
    seed: int,
    counted: Mapping[str, int] = {},
    *,
    turned: bool = True,
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
    counted : mapping of str to int
        By how much buffers advance that count, and switch a term on or off after some steps.
    turned : bool
        Whether every second number in biases and gates changes its sign, and every other one with
        the next seed: a bias far below 0 hides behind a ReLU what it adds once it is trained.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: _parameter(
            _turned(value, seed) if turned else value.detach(), gradients.get(name), generator
        ).requires_grad_(value.requires_grad)
        for name, value in inventory.parameters.items()
    }
    buffers = {
        name: value + counted[name] if name in counted else _buffer(value.detach(), generator)
        for name, value in inventory.buffers.items()
    }
    return dataclasses.replace(inventory, parameters=parameters, buffers=buffers)


def _turned(parameter: Tensor, seed: int) -> Tensor:
    """Change the sign of every second number of a bias or gate that is trained."""
    value = parameter.detach()
    turns = parameter.requires_grad and _is_vector(value) and _moves(value) and value.min() < 0
    if not turns:
        return value
    other = (torch.arange(value.numel(), device=value.device) + seed) % 2 == 1
    small = value.abs() <= _TURNED  # larger ones stand for infinity
    return torch.where(other.reshape(value.shape) & small, -value, value)


def _parameter(value: Tensor, gradient: np.ndarray | None, generator: torch.Generator) -> Tensor:
    if not _moves(value):
        return value.clone()
    wide = value.float()
    if wide.min() > 0:
        return _positive(wide, generator).to(value.dtype)
    scale = _SHARE * float(torch.linalg.vector_norm(wide)) / math.sqrt(wide.numel())
    fan_in = math.prod(value.shape[1:])
    scale = max(scale, _LEAST if _is_vector(value) else _SHARE / math.sqrt(fan_in))
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


def _is_vector(value: Tensor) -> bool:
    """Return whether a tensor has one axis at most, besides those of size 1."""
    return sum(size > 1 for size in value.shape) < 2
