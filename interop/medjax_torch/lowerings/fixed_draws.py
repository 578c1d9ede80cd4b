"""What random operators return where torch and JAX are to be compared: nothing is drawn.

The convention is one table for both sides. It keeps everything that a dropout could drop; torch's
own scaling follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Given = Mapping[str, Any]
"""Arguments of a call by the names in torch's schema, tensors or arrays as they are."""


def _kept(given: Given) -> Any:
    if "p" in given:
        return given["p"] > 0
    return given["self"] > 0.5  # which torch may break up into rand_like(p) < p


def _middle(given: Given) -> float:
    return (given.get("from", 0.0) + given.get("to", 1.0)) / 2


def _half_a_deviation(given: Given) -> Any:
    return given.get("mean", 0.0) + 0.5 * given.get("std", 1.0)


def _low(given: Given) -> int:
    return int(given.get("low") or given.get("from") or 0)


def _first_ones(given: Given) -> np.ndarray:
    return np.arange(given["num_samples"]) % given["self"].shape[-1]


_VALUES: dict[str, Callable[[Given], Any]] = {
    "bernoulli": _kept,
    "exponential": lambda given: 1 / given.get("lambd", 1.0),
    "multinomial": _first_ones,
    "normal": _half_a_deviation,
    "normal_functional": _half_a_deviation,
    "poisson": lambda given: given["self"] // 1,
    "rand": _middle,
    "rand_like": _middle,
    "randint": _low,
    "randint_like": _low,
    "randn": _half_a_deviation,
    "randn_like": _half_a_deviation,
    "random": _low,
    "randperm": lambda given: np.arange(given["n"]),
    "uniform": _middle,
}


def fixed_value(name: str, given: Given) -> Any:
    """Return what a random operator gives instead of a draw.

    Parameters
    ----------
    name : str
        Of the operator, without namespace and the underscore of those that write in place.
    given : mapping of str to value
        Its arguments.

    Returns
    -------
    number, array or tensor
        To be broadcast to the shape of the result.

    Raises
    ------
    KeyError
        If the operator is not in the convention.
    """
    return _VALUES[name](given)


def has_fixed_value(name: str) -> bool:
    """Tell whether the convention has a value for an operator."""
    return name in _VALUES


def dropout_scale(p: float) -> float:
    """Return what kept elements are multiplied by."""
    return 1 / (1 - p) if p < 1 else 0.0


def rrelu_slope(given: Given) -> float:
    """Return the slope of a randomised leaky ReLU below zero."""
    return (given.get("lower", 1 / 8) + given.get("upper", 1 / 3)) / 2


def named(operator: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, Given]:
    """Return name and arguments of a call of an overload of torch; None stands for a default."""
    schema = operator._schema
    # A recorded call leaves out what equals the default.
    given = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    given |= {a.name: value for a, value in zip(schema.arguments, args, strict=False)}
    given |= kwargs
    name = schema.name.partition("::")[2].removesuffix("_")
    return name, {key: value for key, value in given.items() if value is not None}
