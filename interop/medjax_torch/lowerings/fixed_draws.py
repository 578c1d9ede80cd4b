"""Deterministic replacements for random operators, the same in torch and in JAX.

To compare a step in JAX with the same step in torch, both must draw the same numbers. Neither
library can reproduce the other's draws, so each operator is replaced by a function of its
arguments, written with operations that torch tensors and JAX arrays share. Variation comes from
integers that depend only on the position of an element; the uniform numbers made from them are
exact in float32.
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
"""Odd, so the first `_RANGE` elements all differ; near the golden ratio, so they spread evenly."""

LARGEST = _RANGE - 1
"""The step of the largest draws, at which dropout keeps everything."""


def steps(index: Any) -> Any:
    """Return random-looking integers in [0, 2^20) for the positions of elements.

    Parameters
    ----------
    index : Tensor or array
        Integer, the position of each element in the flattened result.
    """
    return (index * _STEP + _RANGE // 2) & (_RANGE - 1)


def _uniform(step: Any) -> Any:
    """Return numbers in the open interval (0, 1)."""
    return (2 * step + 1) / (2 * _RANGE)


def _normal(step: Any) -> Any:
    """Return uniformly distributed numbers with mean 0 and a standard deviation near 1."""
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
    """Reverse the order: a permutation that differs from the identity."""
    return torch.arange(length - 1, -1, -1).numpy()


def _likeliest(step: Any, weights: Any, count: int, replacement: bool = False, **rest: Any) -> Any:
    """Draw the classes of the largest weights; with replacement, the largest every time."""
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
"""One entry for each random operator in the table of lowerings, and no other."""
