"""Update rules of the Adam family of torch.optim.

A rule implements the algorithm in PyTorch's documentation of its class (torch.optim, 2.13), with
`eps` and the bias corrections in the same places as in torch's code, which are not always those of
optax. It returns what is *added* to the parameter. In the formulas, g is the gradient, b a decay
rate, t the update counted from 1, and ``avg(x, g) = b x + (1 - b) g``.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from medjax_torch.optimizers.decays import (
    average_length,
    bias_correction,
    lerp,
    mean_square,
    rectification,
)
from medjax_torch.optimizers.rule import TOUCH, Hyperparams, Rule, Slots, Switches, listed


def _first_moment(gradient: jax.Array, slots: Slots, hyperparams: Hyperparams) -> jax.Array:
    return lerp(slots["exp_avg"], gradient, hyperparams["beta1"])


def _second_moment(gradient: jax.Array, slots: Slots, hyperparams: Hyperparams) -> jax.Array:
    return mean_square(slots["exp_avg_sq"], gradient, hyperparams["beta2"])


def _adam(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``m = avg(m, g); v = avg(v, g^2); -lr m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)``.

    With amsgrad, v is replaced by the largest v so far, before the correction.
    """
    first = _first_moment(gradient, slots, hyperparams)
    second = _second_moment(gradient, slots, hyperparams)
    slots = {**slots, "exp_avg": first, "exp_avg_sq": second}
    if "amsgrad" in switches:
        second = slots["max_exp_avg_sq"] = jnp.maximum(slots["max_exp_avg_sq"], second)
    size = hyperparams["lr"] / bias_correction(hyperparams["beta1"], slots["step"])
    root = jnp.sqrt(bias_correction(hyperparams["beta2"], slots["step"]))
    return -size * first / (jnp.sqrt(second) / root + hyperparams["eps"]), slots


def _adamax(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``m = avg(m, g); u = max(b2 u, |g| + eps); -lr m / (1 - b1^t) / u``."""
    del switches
    first = _first_moment(gradient, slots, hyperparams)
    faded = hyperparams["beta2"].rate * slots["exp_inf"]
    norm = jnp.maximum(faded, jnp.abs(gradient) + hyperparams["eps"])
    size = hyperparams["lr"] / bias_correction(hyperparams["beta1"], slots["step"])
    return -size * first / norm, {**slots, "exp_avg": first, "exp_inf": norm}


def _nadam(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """Adam with Nesterov momentum whose rate grows: ``mu_t = b1 (1 - 0.96^(t psi) / 2)``.

    The step is ``-lr ((1 - mu_t) g / (1 - P_t) + mu_(t+1) m / (1 - P_t mu_(t+1)))`` over
    ``sqrt(v / (1 - b2^t)) + eps``, where ``P_t`` is the product of the mu so far.
    """
    del switches
    beta1, step = hyperparams["beta1"], slots["step"]
    first = _first_moment(gradient, slots, hyperparams)
    second = _second_moment(gradient, slots, hyperparams)

    def warmth(step: jax.Array) -> jax.Array:
        return 0.5 * jnp.exp(step * hyperparams["momentum_decay"] * math.log(0.96))

    mu, mu_next = (beta1.rate * (1.0 - warmth(step + ahead)) for ahead in (0, 1))
    product = slots["mu_product"] * mu
    of_gradient = (beta1.complement + beta1.rate * warmth(step)) / (1.0 - product)
    of_moment = mu_next / (1.0 - product * mu_next)
    root = jnp.sqrt(second / bias_correction(hyperparams["beta2"], step)) + hyperparams["eps"]
    delta = -hyperparams["lr"] * (of_gradient * gradient + of_moment * first) / root
    return delta, {**slots, "exp_avg": first, "exp_avg_sq": second, "mu_product": product}


def _radam(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``-lr m / (1 - b1^t)``, times ``r_t sqrt(1 - b2^t) / (sqrt(v) + eps)`` once rho_t > 5."""
    del switches
    beta2, step = hyperparams["beta2"], slots["step"]
    first = _first_moment(gradient, slots, hyperparams)
    second = _second_moment(gradient, slots, hyperparams)
    length = average_length(beta2, step)
    factor = rectification(beta2, length) * jnp.sqrt(bias_correction(beta2, step))
    adapted = factor / (jnp.sqrt(second) + hyperparams["eps"])
    corrected = first / bias_correction(hyperparams["beta1"], step)
    delta = -hyperparams["lr"] * corrected * jnp.where(length > 5.0, adapted, 1.0)
    return delta, {**slots, "exp_avg": first, "exp_avg_sq": second}


_FELT = 1e5
"""Multiple of `TOUCH` above which a value is a gradient rather than a sum of marks."""


def _sparse_adam(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """Adam on the rows that have a gradient, with eps added to the uncorrected ``sqrt(v)``.

    torch updates the rows that its sparse gradient lists. JAX's gradient is dense; see
    `rule.listed`.
    """
    del switches
    rows = listed(gradient)
    gradient = jnp.where(jnp.abs(gradient) < _FELT * TOUCH, 0.0, gradient)
    squares = slots["exp_avg_sq"]
    first = jnp.where(rows, _first_moment(gradient, slots, hyperparams), slots["exp_avg"])
    second = jnp.where(rows, lerp(squares, gradient**2, hyperparams["beta2"]), squares)
    root = jnp.sqrt(bias_correction(hyperparams["beta2"], slots["step"]))
    size = hyperparams["lr"] * root / bias_correction(hyperparams["beta1"], slots["step"])
    delta = jnp.where(rows, -size * first / (jnp.sqrt(second) + hyperparams["eps"]), 0.0)
    return delta, {**slots, "exp_avg": first, "exp_avg_sq": second}


_NUMBERS = ("lr", "betas", "eps", "weight_decay")
_MOMENTS = {"exp_avg": None, "exp_avg_sq": None}

ADAM = Rule(_adam, _NUMBERS, {**_MOMENTS, "max_exp_avg_sq": "amsgrad"})
ADAMAX = Rule(_adamax, _NUMBERS, {"exp_avg": None, "exp_inf": None})
NADAM = Rule(_nadam, (*_NUMBERS, "momentum_decay"), _MOMENTS, scalars={"mu_product": 1.0})
RADAM = Rule(_radam, _NUMBERS, _MOMENTS)
SPARSE_ADAM = Rule(_sparse_adam, ("lr", "betas", "eps"), _MOMENTS, step="int")
