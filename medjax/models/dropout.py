"""Dropout with a mask that is a hash of the element's index, which on CPU is cheaper than threefry.

`flax.linen.Dropout` draws 32 bits of threefry for every element. Here, threefry draws two words
per call, and an integer hash of the words and the element's index decides whether to drop the
element. This reduced the median time of a training step of MiniLM (16 rows of 64 tokens, two CPU
cores) by 7 to 10 %. XLA fuses the hash with the multiplication by the mask.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Dropout", "DropoutKey", "dropped", "keep_mask"]


def _mix(bits: jax.Array) -> jax.Array:
    """Scramble uint32 values bijectively, so that any input bit flips half of the output bits.

    The constants are those of Chris Wellons' `lowbias32`
    (https://nullprogram.com/blog/2018/07/31/, public domain).
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Draw at random which elements dropout keeps.

    Parameters
    ----------
    key : jax.Array
        Random key; masks of different keys are independent.
    rate : float
        Probability of dropping an element, exact to 2^-32.
    shape : tuple of int
        Shape of the mask. Beyond 2^32 elements the mask repeats.

    Returns
    -------
    jax.Array
        bool, of shape `shape`, True for elements to keep.

    Examples
    --------
    >>> keep_mask(jax.random.key(0), 0.0, (3,)).tolist()
    [True, True, True]
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    # With only one round, two calls whose first words have the same high bits would get
    # permutations of the same mask.
    bits = _mix(_mix(index ^ first) ^ second)
    return bits >= np.uint32(round(rate * 2**32))


def dropped(values: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate).

    Parameters
    ----------
    values : jax.Array
        Any shape and float dtype.
    rate : float
        Probability of dropping an element, in [0, 1).
    key : jax.Array
        Random key.

    Examples
    --------
    >>> dropped(jnp.ones(3), 0.0, jax.random.key(0)).tolist()
    [1.0, 1.0, 1.0]
    """
    keep = keep_mask(key, rate, values.shape)
    return jnp.where(keep, values * (1 / (1 - rate)), 0)


class Dropout(nn.Module):
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate).

    Attributes
    ----------
    rate : float
        Probability of dropping an element, in [0, 1).

    Examples
    --------
    >>> Dropout(0.5).apply({}, jnp.ones(3), deterministic=True).tolist()
    [1.0, 1.0, 1.0]
    """

    rate: float

    @nn.compact
    def __call__(self, values: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return `values` with random elements set to zero.

        Parameters
        ----------
        values : jax.Array
            Any shape and float dtype.
        deterministic : bool
            True to drop nothing; otherwise the random stream ``"dropout"`` is used.
        """
        if deterministic or self.rate == 0:
            return values
        return dropped(values, self.rate, self.make_rng("dropout"))


class DropoutKey(nn.Module):
    """Returns a key of the random stream ``"dropout"``, for functions that are no modules."""

    @nn.compact
    def __call__(self) -> jax.Array:
        """Return a key."""
        return self.make_rng("dropout")
