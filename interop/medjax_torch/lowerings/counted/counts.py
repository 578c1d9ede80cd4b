"""Tensors whose size is counted while the graph runs, stored at the largest size they can have.

A dimension whose size is an expression of counts has the length of that expression at the largest
counts. The real elements come first; the rest, up to the bound, is padding of any value, even NaN.
Operators either preserve this order and carry the padding along, or mask it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import sympy
import torch
from torch import Tensor

from medjax_torch.graph.sizes import Length, length, lengths
from medjax_torch.torch_internals import pytree

aten = torch.ops.aten


class Number:
    """A recorded number that depends on counts.

    Attributes
    ----------
    bound : int
        Its value at the largest counts, used in shapes.
    value : jax.Array
        Its actual value, a scalar int32, used in arithmetic.
    """

    def __init__(self, bound: int, value: jax.Array) -> None:
        self.bound = bound
        self.value = value


def computable(size: Length) -> bool:
    """Return whether a size is non-decreasing in its counts, so that they give its bound."""
    if isinstance(size, int) or size.is_Symbol:
        return True
    if size.is_Integer:
        return bool(size >= 0)
    if isinstance(size, sympy.Add):
        return all(part.is_Integer or computable(part) for part in size.args)
    if isinstance(size, sympy.Pow):
        return bool(size.exp.is_Integer and size.exp > 0) and computable(size.base)
    known = isinstance(size, sympy.Mul) or type(size).__name__ in ("Min", "Max")
    return known and all(computable(part) for part in size.args)


class Counts:
    """The value and the upper bound of each symbol."""

    def __init__(self) -> None:
        self._bounds: dict[Any, int] = {}
        self._values: dict[Any, jax.Array] = {}

    def set(self, size: Any, bound: int, value: jax.Array) -> None:
        """Record the size of a selection, unless its symbol already has a value."""
        for symbol in {size.node._expr, size.node.expr}:
            if symbol.is_Symbol and symbol not in self._values:
                self._bounds[symbol], self._values[symbol] = bound, value.astype(jnp.int32)

    def knows(self, size: Length) -> bool:
        """Return whether all symbols in a size have been counted."""
        return isinstance(size, int) or size.free_symbols <= self._values.keys()

    def bound(self, size: Length) -> int:
        """Return the largest value of a size."""
        if isinstance(size, int):
            return size
        return max(0, int(size.xreplace(self._bounds)))

    def value(self, size: Length) -> Any:
        """Return the value of a size: an int, or a scalar array."""
        if isinstance(size, int):
            return size
        if size.is_Integer:
            return int(size)
        if size.is_Symbol:
            return self._values[size]
        if isinstance(size, sympy.Pow):
            return self.value(size.base) ** int(size.exp)
        parts = [self.value(part) for part in size.args]
        return functools.reduce(_COMBINED[type(size).__name__], parts)

    def number(self, size: Length) -> int | Number:
        """Return a size in the form that operators take."""
        return size if isinstance(size, int) else Number(self.bound(size), self.value(size))

    def shape(self, value: Tensor) -> tuple[int, ...]:
        """Return the shape of a recorded tensor at its bounds."""
        return tuple(self.bound(size) for size in lengths(value))

    def at_bounds(self, recorded: Any) -> Any:
        """Return recorded results with their shapes at the bounds."""

        def one(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            return torch.empty(self.shape(value), dtype=value.dtype, device="meta")

        return pytree.tree_map(one, recorded)

    def valid(self, shape: Sequence[Length], dim: int) -> jax.Array:
        """Return which positions along a dimension are not padding, shaped for broadcasting."""
        size = shape[dim]
        places = jnp.arange(self.bound(size)) < self.value(size)
        result: jax.Array = places.reshape(
            [-1 if d == dim % len(shape) else 1 for d in range(len(shape))]
        )
        return result

    def filled(
        self, x: jax.Array, recorded: Tensor, value: Any, dims: Iterable[int] | None = None
    ) -> jax.Array:
        """Replace padding along `dims`, by default along all dimensions, with `value`."""
        shape = lengths(recorded)
        for dim in range(len(shape)) if dims is None else {d % len(shape) for d in dims}:
            if not isinstance(shape[dim], int):
                x = jnp.where(self.valid(shape, dim), x, jnp.asarray(value, x.dtype))
        return x


_COMBINED: dict[str, Callable[..., Any]] = {
    "Add": lambda x, y: x + y,
    "Mul": lambda x, y: x * y,
    "Max": jnp.maximum,
    "Min": jnp.minimum,
}


def counted_number(value: Any) -> Length | None:
    """Return the expression of a recorded number, or None for a tensor or a plain number."""
    return length(value) if isinstance(value, torch.SymInt) else None
