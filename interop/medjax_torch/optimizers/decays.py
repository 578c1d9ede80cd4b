"""Exponential decay rates and quantities derived from them, accurate in float32.

``1 - 0.999`` has only four correct digits if 0.999 is first rounded to float32, and so does
``1 - b**t``. The host, which has float64, therefore passes `complement` and `log` along with the
rate. From these every quantity of an update is a well-conditioned function of the update count, and
the count can stay on the device.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Decay(NamedTuple):
    """A decay rate b of a moving average.

    Attributes
    ----------
    rate : float32, shape ()
        b.
    complement : float32, shape ()
        1 - b, rounded once.
    log : float32, shape ()
        log(b), rounded once; -inf for b = 0.
    """

    rate: Any
    complement: Any
    log: Any


def make_decay(rate: float) -> Decay:
    """Return the `Decay` of a rate, computed in float64 on the host."""
    log = math.log(rate) if rate > 0 else -math.inf
    return Decay(np.float32(rate), np.float32(1.0 - rate), np.float32(log))


def lerp(average: jax.Array, value: jax.Array, decay: Decay) -> jax.Array:
    """Return ``b average + (1 - b) value``, computed as a step towards `value`."""
    result: jax.Array = average + decay.complement * (value - average)
    return result


def mean_square(average: jax.Array, value: jax.Array, decay: Decay) -> jax.Array:
    """Return ``b average + (1 - b) value**2``.

    Unlike in `lerp`, torch rounds b and 1 - b separately; the limits of the two forms differ by
    1e-5.
    """
    result: jax.Array = decay.rate * average + decay.complement * (value * value)
    return result


def bias_correction(decay: Decay, step: jax.Array) -> jax.Array:
    """Return ``1 - b**t``.

    It is computed as ``-expm1(t log b)``, whose relative error is at most that of ``t log b``.

    Parameters
    ----------
    decay : Decay
        The decay with rate b.
    step : jax.Array
        Update t, counted from 1, int32, shape ().
    """
    return -jnp.expm1(step * decay.log)


def average_length(decay: Decay, step: jax.Array) -> jax.Array:
    """Return the length rho_t of RAdam's approximated simple moving average.

    RAdam defines ``rho_t = rho_inf - 2 t b**t / (1 - b**t)`` with ``rho_inf = 2 / (1 - b) - 1``.
    For b = 0.999 this is the difference of two numbers near 2000, which has only three correct
    digits in float32. With ``L = -log b`` both are hyperbolic cotangents,
    ``rho_inf = coth(L / 2)`` and ``2 b**t / (1 - b**t) = coth(t L / 2) - 1``, and subtracting the
    pole 2 / L from each gives ::

        rho_t = t (1 - l(t L / 2)) + l(L / 2),    l(y) = coth(y) - 1 / y

    without cancellation.

    Parameters
    ----------
    decay : Decay
        The decay of the second moment.
    step : jax.Array
        Update t, counted from 1, int32, shape ().

    References
    ----------
    Liu et al. 2019, On the variance of the adaptive learning rate and beyond (section 4).
    """
    half = -0.5 * decay.log
    return step * _beyond_langevin(step * half) + (1.0 - _beyond_langevin(half))


def rectification(decay: Decay, length: jax.Array) -> jax.Array:
    """Return RAdam's ``r_t``; it is only meaningful for a `length` rho_t above 5.

    ``r_t**2 = (rho_t - 4)(rho_t - 2) rho_inf / ((rho_inf - 4)(rho_inf - 2) rho_t)``
    """
    limit = 2.0 / decay.complement - 1.0
    variance = (length - 4.0) * (length - 2.0) * limit
    return jnp.sqrt(variance / ((limit - 4.0) * (limit - 2.0) * length))


def _beyond_langevin(y: jax.Array) -> jax.Array:
    # 1 - l(y). Near 0 the poles of l cancel; below 1/2, four terms of its series suffice for 4e-8.
    square = y * y
    series = y * (1 / 3 - square * (1 / 45 - square * (2 / 945 - square / 4725)))
    return jnp.where(y < 0.5, 1.0 - series, 1.0 / y - 2.0 / jnp.expm1(2.0 * y))
