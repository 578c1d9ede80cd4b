"""Values that forward receives in an experiment, in place of those it reads."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from medjax_torch.graph.digests import Summary
from medjax_torch.graph.read_numbers import Expression, itself
from medjax_torch.graph.reader import Answer, Read

_LARGE = 1e30
MODERATE = 600.0
"""A large number whose exponential is still finite."""


def recognised(
    content: Any, value: Any, path: str, told: Sequence[float], marked: Sequence[Summary]
) -> Expression | None:
    """Return how an output is computed from a number that was read, or None if it is not.

    Parameters
    ----------
    content : tuple
        Type and text of the output.
    value : object
        The number that was read.
    path : str
        Path of the output.
    told : sequence of float
        The numbers handed out in its place, in the experiments of `marked`.
    marked : sequence of Summary
        The results of those experiments.
    """
    probed = [
        dict(leaf for leaves in probe.outputs.values() for leaf in leaves).get(path)
        for probe in marked
    ]
    for function, rest in _FORMS:
        expected = [_written(function, number, rest) for number in (value, *told)]
        if [content, *probed] == expected:
            return Expression(function, (torch.zeros(()), *rest))
    return None


def _written(function: Callable[..., Any], number: float, rest: tuple[Any, ...]) -> Any:
    with contextlib.suppress(ValueError, OverflowError):
        result = function(number, *rest)
        return type(result).__name__, repr(result)
    return None


_FORMS: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
    (itself, ()),
    *((round, (digits,)) for digits in range(9)),
    (math.exp, ()),
]
"""Forms recognised in an output: the number as read, rounded, or as a perplexity."""

MARKS = (1, 2)


def mark(read: int | None, which: int) -> float:
    """Return a number that no other read gets, and whose digits differ."""
    step = (0.6180339887498949, 0.7548776662466927)[which - 1]
    return 0.1372894651 * which + ((read or 0) + 1) * step % 1


def always(value: float) -> Callable[[int], float]:
    """Return a function that gives the same number for every position."""
    return lambda position: value


PROBES: list[tuple[Callable[[int], float], int]] = [
    (lambda read: mark(read, 1), 1),
    (lambda read: mark(read, 2), 0),
    (always(_LARGE), 1),
    (always(-_LARGE), 0),
    (always(math.nan), 0),
]
"""The float handed out, and how integers are changed: to the one below, or to 0 or 1."""
NAN = len(PROBES) - 1
GRID = [(always(size), 0) for size in (0.0, 0.01, 0.1, 0.3, 0.7, 2.0, 5.0, 20.0, 1e3)]
"""More floats, for numbers that Python may compare without being noticed."""

FOLLOWED = ("item", "__bool__", "equal")
"""Functions whose numbers are noticed when Python compares them."""


def altering(wanted: Collection[int], float_: Callable[[int], float], integer: int) -> Answer:
    """Return answers that alter the reads at some positions.

    Parameters
    ----------
    wanted : collection of int
        Positions of the reads to alter.
    float_ : callable
        Returns the float to hand out at a position.
    integer : int
        How integers are changed; see `PROBES`.
    """

    def answer(position: int, read: Read, value: Any) -> Any:
        if read.kind == "truth" or position not in wanted:
            return value
        if isinstance(value, Tensor):
            return _altered(value, float_(position), integer)
        if isinstance(value, float):
            return float_(position)
        return _other_integer(value, integer) if isinstance(value, int) else value

    return answer


def _other_integer(value: int, way: int) -> int:
    if value < 0:
        return value - 1
    if way:
        return 0 if value else 1
    return value - 1 if value else 1


def _altered(values: Tensor, number: float, way: int) -> Tensor:
    if values.dtype == torch.bool:
        return ~values
    if values.is_floating_point() or values.is_complex():
        return (
            torch.full_like(values, min(max(number, -1e4), 1e4))
            if values.dtype == (torch.float16)
            else torch.full_like(values, number)
        )
    other = (values == 0).to(values.dtype) if way else torch.where(values > 0, values - 1, 1)
    return torch.where(values < 0, values, other).to(values.dtype)


def flipping(wanted: int) -> Answer:
    """Return answers that invert the truth value at one position."""

    def answer(position: int, read: Read, value: Any) -> Any:
        return not value if position == wanted else value

    return answer
