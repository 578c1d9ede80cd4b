"""What random operators give where nothing may be random: one convention for torch and for JAX.

To compare a component's step in JAX with torch's own, both have to draw the same. Neither can draw
as the other does, so each operator has here a function of its arguments, written in operations
that torch tensors and JAX arrays share. What varies comes from integers that depend on the place of
an element alone, and the uniform numbers made of them are exact in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

aten = torch.ops.aten

Draw = Callable[..., Any]
"""Takes `steps` of the result's shape, then the operator's arguments; returns its results."""

_RANGE = 2**20
_STEP = 648_055
"""Odd, so the first `_RANGE` elements all differ, and near the golden section, so they spread."""

UNSPREAD = _RANGE - 1
"""The step to give every element where no draw may depend on its place: dropout keeps all."""


def steps(index: Any) -> Any:
    """Return integers in [0, 2^20) that look random for the places of elements.

    Parameters
    ----------
    index : Tensor or array
        Integer, the place of each element in the flattened result.
    """
    return (index * _STEP + _RANGE // 2) & (_RANGE - 1)


def _uniform(step: Any) -> Any:
    """Return numbers in (0, 1), never a bound."""
    return (2 * step + 1) / (2 * _RANGE)


def _normal(step: Any) -> Any:
    """Return numbers of mean 0 and a deviation near 1; their distribution is a uniform one."""
    return 4 * _uniform(step) - 2


def _bernoulli(step: Any, p: Any) -> Any:
    return _uniform(step) > 1 - p


def _dropout(step: Any, x: Any, p: float, train: bool | None) -> Any:
    if train is False:
        return x, step >= 0
    keep = _uniform(step) > p
    return x * keep * (1 / (1 - p) if p < 1 else 0), keep


def _between(step: Any, low: int, high: int) -> Any:
    return low + step % min(high - low, _RANGE)


def _permutation(step: Any, length: int, **rest: Any) -> Any:
    """Reverse the numbers: a permutation that can be told from none."""
    return torch.arange(length - 1, -1, -1).numpy()


def _likeliest(step: Any, weights: Any, count: int, replacement: bool = False, **rest: Any) -> Any:
    """Take the classes of the largest weights, with replacement the largest each time."""
    order = weights.argsort(descending=True, stable=True)
    return order[..., :1] if replacement else order[..., :count]


def _rrelu(
    step: Any,
    x: Any,
    noise: Any,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    generator: None = None,
) -> Any:
    below = x <= 0
    if not training:
        return x * (below * ((lower + upper) / 2) + ~below), noise
    slope = below * (lower + (upper - lower) * _uniform(step)) + ~below
    return x * slope, slope


def _of_size(draw: Callable[[Any], Any]) -> Draw:
    return lambda step, *args, **rest: draw(step)


def _randint(step: Any, high: int, size: Sequence[int], **rest: Any) -> Any:
    return _between(step, 0, high)


def _on_simplex(step: Any, concentration: Any, **rest: Any) -> Any:
    weight = concentration * _uniform(step)
    return weight / weight.sum(-1)[..., None]


FIXED_DRAWS: dict[Any, Draw] = {
    aten.native_dropout.default: _dropout,
    aten.bernoulli.default: lambda step, p, **rest: _bernoulli(step, p),
    aten.bernoulli.p: lambda step, x, p=0.5, **rest: _bernoulli(step, p),
    aten.bernoulli.Tensor: lambda step, x, p, **rest: _bernoulli(step, p),
    aten.rand.default: _of_size(_uniform),
    aten.rand_like.default: _of_size(_uniform),
    aten.randn.default: _of_size(_normal),
    aten.randn_like.default: _of_size(_normal),
    aten.uniform.default: lambda step, x, low=0.0, high=1.0, **rest: (
        low + (high - low) * _uniform(step)
    ),
    aten.normal_functional.default: lambda step, x, mean=0.0, std=1.0, **rest: (
        mean + std * _normal(step)
    ),
    **dict.fromkeys(
        (
            aten.normal.Tensor_float,
            aten.normal.float_Tensor,
            aten.normal.Tensor_Tensor,
            aten.normal.float_float,
        ),
        lambda step, mean, std=1.0, *size, **rest: mean + std * _normal(step),
    ),
    aten.exponential.default: lambda step, x, rate=1.0, **rest: 2 * _uniform(step) / rate,
    aten.randint.default: _randint,
    aten.randint.low: lambda step, low, high, size, **rest: _between(step, low, high),
    aten.randint_like.default: lambda step, x, high, **rest: _between(step, 0, high),
    aten.randint_like.low_dtype: lambda step, x, low, high, **rest: _between(step, low, high),
    aten.randperm.default: _permutation,
    aten.multinomial.default: _likeliest,
    aten.rrelu_with_noise_functional.default: _rrelu,
    aten.poisson.default: lambda step, rate, **rest: (rate + _uniform(step)) // 1,
    aten._standard_gamma.default: lambda step, shape, **rest: 2 * shape * _uniform(step),
    aten._sample_dirichlet.default: _on_simplex,
    aten.binomial.default: lambda step, count, p, **rest: (count * p + _uniform(step)) // 1,
    aten.cauchy.default: lambda step, x, median=0.0, sigma=1.0, **rest: (
        median + sigma * _normal(step)
    ),
    aten.geometric.default: lambda step, x, p, **rest: (1 + 2 * _uniform(step) / p) // 1,
    aten.log_normal.default: lambda step, x, mean=1.0, std=2.0, **rest: (
        abs(mean) + std * _uniform(step)
    ),
}
"""For every random operator of the table, and for no other."""
