"""The table of lowerings: which JAX function implements each torch operator.

A lowering takes the operator's arguments with JAX arrays in place of tensors and returns what the
operator returns. The interpreter casts the results to torch's dtypes and checks their shapes, so a
lowering can ignore type promotion wherever JAX promotes at least as far as torch.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

Target = Callable[..., Any]
"""What a node of the graph calls: an overload of a torch operator, or a Python function."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Kind(enum.Enum):
    """The extra first argument of a lowering, before the operator's own arguments."""

    PLAIN = enum.auto()
    """None."""
    RANDOM = enum.auto()
    """A random key of its own for each call."""
    TRACED = enum.auto()
    """What the trace recorded about the call: a `Traced`."""


class Traced(NamedTuple):
    """What torch's trace recorded about a call, for data-dependent shapes and memory layouts."""

    output: Any
    """The result as torch tensors without data."""
    arguments: tuple[Any, ...]
    """The positional arguments, their tensors without data."""
    swapped: tuple[bool, ...]
    """Which positional arguments were created by swapping the last two axes of a tensor."""


class Lowering(NamedTuple):
    """A row of the table."""

    function: Callable[..., Any]
    kind: Kind


TABLE: dict[Target, Lowering] = {}
"""All rows. Each module of this package adds its own when it is imported."""


def lowers(*targets: Target, kind: Kind = Kind.PLAIN) -> Callable[[Function], Function]:
    """Register the decorated function as the lowering of each target.

    Parameters
    ----------
    *targets : callable
        Operator overloads such as ``torch.ops.aten.add.Tensor``.
    kind : Kind
        What the function takes before the operator's arguments.

    Raises
    ------
    ValueError
        If a target already has a lowering.

    Examples
    --------
    >>> @lowers(torch.ops.aten.rsqrt.default)  # doctest: +SKIP
    ... def _rsqrt(x: jax.Array) -> jax.Array:
    ...     return jax.lax.rsqrt(x)
    """

    def enter(function: Function) -> Function:
        for target in targets:
            if target in TABLE:
                raise ValueError(
                    f"{target} has two lowerings, {TABLE[target].function} and {function}. "
                    "Remove one of them."
                )
            TABLE[target] = Lowering(function, kind)
        return function

    return enter


def lowers_each(rows: Mapping[Target, Callable[..., Any]]) -> None:
    """Register each value of a mapping as the lowering of its key."""
    for target, function in rows.items():
        lowers(target)(function)
