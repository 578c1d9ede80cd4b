"""A component at other weights, such as training may reach."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from medjax_torch.modules import Found

_SHARE = 0.3
"""How far weights move, as a share of their root mean square."""

_LEAST = 0.1
"""How far a bias, a gate or a scale moves at least: training takes them there from 0."""


def moved(found: Found, gradients: Mapping[str, np.ndarray], seed: int) -> Found:
    """Return the content with every floating-point number at another value.

    Zero biases, zero gates and undecided ReLUs are left, so that what holds at the new weights
    does not hold by them. Numbers that are all positive, as scales and running variances are, stay
    positive. Zeros among other numbers stay zeros if no gradient reaches them: such are the
    embedding of padding, and masks.

    Parameters
    ----------
    found : Found
        The component's content. It is left as it is.
    gradients : mapping of str to array
        Gradients of parameters, as many as are known.
    seed : int
        Of the numbers drawn.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = {
        name: _parameter(value.detach(), gradients.get(name), generator).requires_grad_(
            value.requires_grad
        )
        for name, value in found.parameters.items()
    }
    buffers = {name: _buffer(value.detach(), generator) for name, value in found.buffers.items()}
    return dataclasses.replace(found, parameters=parameters, buffers=buffers)


def _parameter(value: Tensor, gradient: np.ndarray | None, generator: torch.Generator) -> Tensor:
    if not _moves(value):
        return value.clone()
    wide = value.float()
    if (wide > 0).all():
        return _positive(wide, generator).to(value.dtype)
    scale = _SHARE * float(wide.square().mean().sqrt())
    fan_in = math.prod(value.shape[1:])
    scale = max(scale, _LEAST if value.ndim < 2 else _SHARE / math.sqrt(fan_in))
    other = wide + scale * _normal(wide, generator)
    zeros = wide == 0
    if not zeros.all():
        reached = torch.zeros_like(zeros)
        if gradient is not None:
            reached = torch.from_numpy(np.asarray(gradient != 0)).to(value.device)
        other = torch.where(zeros & ~reached, wide, other)
    return other.to(value.dtype)


def _buffer(value: Tensor, generator: torch.Generator) -> Tensor:
    """Return other numbers of the same sign; zeros move where there is nothing else."""
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
