"""Dropout whose mask is a hash of the element's index: on CPU, cheaper than a random generator.

`flax.linen.Dropout` draws 32 bits of threefry for every element. Here threefry draws two words
for each call, and an integer hash of (words, index) decides about the element, which made a
training step of MiniLM (16 rows of 64 tokens, two CPU cores) 7 to 10 % shorter in the median.
The hash fuses with the multiplication it guards.
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def _mix(bits: jax.Array) -> jax.Array:
    """Scramble uint32 values, one to one, so that any input bit flips half of the output bits.

    The constants are those of Chris Wellons' `lowbias32`
    (https://nullprogram.com/blog/2018/07/31/, public domain).
    """
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


def keep_mask(key: jax.Array, rate: float, shape: tuple[int, ...]) -> jax.Array:
    """Decide for every element whether dropout keeps it.

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
        bool, of shape `shape`, True where the element is kept.
    """
    first, second = jax.random.bits(key, (2,), jnp.uint32)
    index = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    # With one round only, two calls whose first words share their high bits would have the same
    # mask, permuted.
    bits = _mix(_mix(index ^ first) ^ second)
    return bits >= np.uint32(round(rate * 2**32))


class Dropout(nn.Module):
    """Zero each element with probability `rate` and scale the others by 1 / (1 - rate).

    Attributes
    ----------
    rate : float
        Probability of dropping an element, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(self, values: jax.Array, *, deterministic: bool) -> jax.Array:
        """Return `values`, of any shape and float dtype, with elements dropped.

        Nothing is dropped if `deterministic`; otherwise the random stream ``"dropout"`` is used.
        """
        if deterministic or self.rate == 0:
            return values
        keep = keep_mask(self.make_rng("dropout"), self.rate, values.shape)
        return jnp.where(keep, values * (1 / (1 - self.rate)), 0)
