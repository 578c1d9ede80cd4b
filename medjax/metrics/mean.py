"""Mean: a total and a weight, kept on device and merged before they are divided."""

from __future__ import annotations

from typing import Self

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Mean:
    """A weighted mean that has not been divided yet.

    Keeping total and weight apart makes the mean of a whole epoch independent of how its items
    were cut into batches, padded or spread over devices.

    Attributes
    ----------
    total : jax.Array
        Sum of value times weight, shape (), float32.
    weight : jax.Array
        Sum of the weights, shape (), float32.

    Examples
    --------
    >>> a = Mean.of(jnp.array([1.0, 2.0]))
    >>> b = Mean.of(jnp.array([6.0, 100.0]), jnp.array([1.0, 0.0]))
    >>> float(a.merge(b).compute())
    3.0
    """

    total: jax.Array
    weight: jax.Array

    @classmethod
    def empty(cls) -> Self:
        """Return the mean of nothing; merging it changes nothing."""
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> Self:
        """Return the mean of `values`.

        Parameters
        ----------
        values : jax.Array
            Values of any shape.
        weights : jax.Array, optional
            Weights or a mask, of a shape that broadcasts to that of `values`. A value of weight
            zero does not count, not even when it is not finite.
        """
        values = jnp.asarray(values, jnp.float32)
        if weights is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        weights = jnp.broadcast_to(jnp.asarray(weights, jnp.float32), values.shape)
        counted = jnp.where(weights != 0, values, 0.0)
        return cls((counted * weights).sum(), weights.sum())

    def merge(self, other: Mean) -> Self:
        """Return the mean over the items of both."""
        return self.replace(total=self.total + other.total, weight=self.weight + other.weight)  # type: ignore[attr-defined]

    def compute(self) -> jax.Array:
        """Return total divided by weight, shape (), float32; NaN when nothing was weighed."""
        return self.total / self.weight
