"""Functions of torch that refuse values, which their operators in a graph do not look at.

What depends on the batch alone is checked before each step, and torch then raises its own error.
Elsewhere a value that torch would refuse gives NaN, or an index that is out of range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from medjax_torch.graph.guards import OPTIONAL

aten = torch.ops.aten

_Function = Callable[..., Tensor]


def _checked(allowed: Tensor) -> Tensor:
    aten._assert_async.msg(allowed.all(), OPTIONAL)
    return allowed


def _is_probability(values: Tensor) -> Tensor:
    return _checked((values >= 0) & (values <= 1))


def _binary_cross_entropy(input: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute the loss; an input that is no probability gives NaN by itself."""
    if isinstance(target, Tensor) and target.is_floating_point():
        target = torch.where(_is_probability(target), target, torch.nan)
    return functional.binary_cross_entropy(input, target, *args, **kwargs)


def _bernoulli(function: _Function) -> _Function:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        drawn = function(input, *args, **kwargs)
        if args or "p" in kwargs or not input.is_floating_point():
            return drawn
        return torch.where(_is_probability(input), drawn, torch.nan)

    return call


def _bernoulli_in_place(input: Tensor, p: Any = 0.5, **kwargs: Any) -> Tensor:
    allowed = _is_probability(p) if isinstance(p, Tensor) else None
    drawn = Tensor.bernoulli_(input, p, **kwargs)
    if allowed is None or not input.is_floating_point():
        return drawn
    return drawn.masked_fill_(~allowed, torch.nan)


def _multinomial(function: _Function) -> _Function:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        drawn = function(input, *args, **kwargs)
        if not input.numel():
            return drawn
        sound = (input >= 0) & (input < torch.inf)
        allowed = _checked(sound.all(-1, keepdim=True) & (input > 0).any(-1, keepdim=True))
        return torch.where(allowed, drawn, input.shape[-1])

    return call


CHECKED: dict[_Function, _Function] = {
    functional.binary_cross_entropy: _binary_cross_entropy,
    torch.bernoulli: _bernoulli(torch.bernoulli),
    torch.multinomial: _multinomial(torch.multinomial),
    Tensor.bernoulli: _bernoulli(Tensor.bernoulli),
    Tensor.bernoulli_: _bernoulli_in_place,
    Tensor.multinomial: _multinomial(Tensor.multinomial),
}
"""The functions, and what is called instead of them."""
