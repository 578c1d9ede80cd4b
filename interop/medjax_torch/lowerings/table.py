"""The table of lowerings: which function means which torch operator in JAX.

A lowering takes the operator's arguments with JAX arrays in the place of tensors and returns what
the operator returns. The interpreter casts the results to torch's dtypes and checks their shapes,
so a lowering need not care for type promotion where JAX promotes at least as far as torch.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

Target = Callable[..., Any]
"""What a node of the graph calls: an overload of a torch operator, or a Python function."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Kind(enum.Enum):
    """What a lowering takes before the operator's own arguments."""

    PLAIN = enum.auto()
    """Nothing."""
    RANDOM = enum.auto()
    """A random key of its own."""
    TRACED = enum.auto()
    """What the trace knows: a `Traced`."""


class Traced(NamedTuple):
    """What torch's trace recorded about a call, for shapes that depend on data and for layouts."""

    output: Any
    """The result as torch tensors without data."""
    arguments: tuple[Any, ...]
    """The positional arguments, their tensors without data."""
    swapped: tuple[bool, ...]
    """Which positional arguments were made by swapping the last two axes of a tensor."""


class Lowering(NamedTuple):
    """A row of the table."""

    function: Callable[..., Any]
    kind: Kind


TABLE: dict[Target, Lowering] = {}
"""All rows; the modules of this package fill it when they are imported."""


def lowers(*targets: Target, kind: Kind = Kind.PLAIN) -> Callable[[Function], Function]:
    """Return a decorator that enters a function as the lowering of each target.

    Parameters
    ----------
    *targets : callable
        Operator overloads such as ``torch.ops.aten.add.Tensor``.
    kind : Kind
        What the function takes before the operator's arguments.

    Raises
    ------
    ValueError
        If a target has a lowering already.
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
    """Enter each value of a mapping as the lowering of its key."""
    for target, function in rows.items():
        lowers(target)(function)
