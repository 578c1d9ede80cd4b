"""Mean: a weighted sum and the sum of its weights, merged on the device and divided at the end."""

from __future__ import annotations

import dataclasses
from typing import Self

import jax
import jax.numpy as jnp
from flax import struct

__all__ = ["Mean"]


@struct.dataclass
class Mean:
    """A weighted mean, kept as numerator and denominator.

    The mean of values x_i with weights w_i is::

        total / weight,  total = sum_i w_i x_i,  weight = sum_i w_i

    Totals and weights of several batches add up, so the mean over an epoch, or over the
    micro-batches of an accumulated update, does not depend on how its items were split into
    batches, padded (with weight 0) or distributed over devices::

        (total_1 + ... + total_n) / (weight_1 + ... + weight_n)

    A mean of the means of batches would weigh the items of a short batch more.

    Attributes
    ----------
    total : jax.Array
        Weighted sum of the values, shape (), float32.
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
        """Return the mean of no values, the neutral element of `merge`.

        Examples
        --------
        >>> float(Mean.empty().merge(Mean.of(jnp.array([2.0]))).compute())
        2.0
        """
        return cls(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | None = None) -> Self:
        """Return the mean of `values`.

        Parameters
        ----------
        values : jax.Array
            Values of any shape.
        weights : jax.Array, optional
            Weights or a mask, of the first axes of `values`: weights of shape (rows,) are those of
            the rows for losses of shape (rows, classes), too. Or with as many axes, 1 where they
            are the same along an axis. By default all weights are 1. A value of weight zero does
            not count, even if it is NaN or infinite.

        Raises
        ------
        ValueError
            If the weights have another shape; NumPy would broadcast some along the last axes.

        Examples
        --------
        >>> float(Mean.of(jnp.array([1.0, 4.0]), jnp.array([1.0, 3.0])).compute())
        3.25
        >>> float(Mean.of(jnp.array([[1.0, 3.0], [8.0, 9.0]]), jnp.array([1.0, 0.0])).compute())
        2.0
        """
        values = jnp.asarray(values, jnp.float32)
        if weights is None:
            return cls(values.sum(), jnp.asarray(values.size, jnp.float32))
        weights = _along_first_axes(jnp.asarray(weights, jnp.float32), values.shape)
        counted = jnp.where(weights != 0, values, 0.0)
        return cls((counted * weights).sum(), weights.sum())

    def merge(self, other: Mean) -> Self:
        """Return the mean over the values of both."""
        total, weight = self.total + other.total, self.weight + other.weight
        return dataclasses.replace(self, total=total, weight=weight)

    def compute(self) -> jax.Array:
        """Return `total` divided by `weight`, shape (), float32; NaN if there are no values."""
        return self.total / self.weight


def _along_first_axes(weights: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Broadcast weights to a shape, with the axes that they lack at the end."""
    found = weights.shape
    full = (*found, *(1,) * (len(shape) - len(found)))
    is_prefix = found == shape[: len(found)]
    fits = len(found) == len(shape) and all(
        own in (1, size) for own, size in zip(found, shape, strict=True)
    )
    if not is_prefix and not fits:
        msg = (
            f"Mean.of got weights of shape {found} for values of shape {shape}; expected the shape "
            f"of the first axes, such as {shape[:1]}, or as many axes, with 1 for those along "
            "which the weights are the same"
        )
        raise ValueError(msg)
    return jnp.broadcast_to(weights.reshape(full), shape)
