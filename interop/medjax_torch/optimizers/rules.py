"""Update rules of torch.optim: the table of classes, and the rules outside the Adam family.

`adam_rules` describes the form of a rule and the notation of the formulas.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import torch

from medjax_torch.optimizers.adam_rules import ADAM, ADAMAX, NADAM, RADAM, SPARSE_ADAM
from medjax_torch.optimizers.decays import lerp, mean_square
from medjax_torch.optimizers.rule import Hyperparams, Rule, Slots, Switches


def _sgd(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``B = momentum B + (1 - dampening) g``, first ``B = g``; nesterov: ``g + momentum B``."""
    lr, momentum = hyperparams["lr"], hyperparams["momentum"]
    if "momentum" not in switches:
        return -lr * gradient, slots
    old, step = slots["momentum_buffer"], slots["step"]
    damped = momentum * old + hyperparams["undamped"] * gradient
    buffer = jnp.where(step == 1, gradient, damped)
    direction = gradient + momentum * buffer if "nesterov" in switches else buffer
    # While a scheduler keeps the momentum at 0, torch leaves the buffer unchanged.
    moving = momentum != 0
    slots = {
        "step": jnp.where(moving, step, step - 1),
        "momentum_buffer": jnp.where(moving, buffer, old),
    }
    return -lr * jnp.where(moving, direction, gradient), slots


def _rmsprop(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``v = avg(v, g^2); -lr g / (sqrt(v) + eps)``; centered: ``v - avg(a, g)^2`` under the root.

    With momentum, the fraction is first added to ``momentum B``.
    """
    lr, momentum, alpha = (hyperparams[name] for name in ("lr", "momentum", "alpha"))
    square = mean_square(slots["square_avg"], gradient, alpha)
    slots = {**slots, "square_avg": square}
    if "centered" in switches:
        mean = slots["grad_avg"] = lerp(slots["grad_avg"], gradient, alpha)
        square = square - mean * mean
    fraction = gradient / (jnp.sqrt(square) + hyperparams["eps"])
    if "momentum" not in switches:
        return -lr * fraction, slots
    old = slots["momentum_buffer"]
    buffer = momentum * old + fraction
    # As in SGD, the buffer does not change while the momentum is 0.
    slots["momentum_buffer"] = jnp.where(momentum > 0, buffer, old)
    return -lr * jnp.where(momentum > 0, buffer, fraction), slots


def _adagrad(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``s = s + g^2; -lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps)``."""
    del switches
    total = slots["sum"] + gradient * gradient
    lr = hyperparams["lr"] / (1.0 + (slots["step"] - 1) * hyperparams["lr_decay"])
    return -lr * gradient / (jnp.sqrt(total) + hyperparams["eps"]), {**slots, "sum": total}


def _adadelta(
    gradient: jax.Array, slots: Slots, hyperparams: Hyperparams, switches: Switches
) -> tuple[jax.Array, Slots]:
    """``v = avg(v, g^2); d = g sqrt(u + eps) / sqrt(v + eps); u = avg(u, d^2); -lr d``."""
    del switches
    rho, eps = hyperparams["rho"], hyperparams["eps"]
    square = mean_square(slots["square_avg"], gradient, rho)
    delta = jnp.sqrt(slots["acc_delta"] + eps) / jnp.sqrt(square + eps) * gradient
    travelled = mean_square(slots["acc_delta"], delta, rho)
    return -hyperparams["lr"] * delta, {**slots, "square_avg": square, "acc_delta": travelled}


RULES: dict[type[torch.optim.Optimizer], Rule] = {
    torch.optim.SGD: Rule(
        _sgd,
        ("lr", "momentum", "dampening", "weight_decay"),
        {"momentum_buffer": "momentum"},
        step="absent",
    ),
    torch.optim.Adam: ADAM,
    torch.optim.AdamW: ADAM,
    torch.optim.Adamax: ADAMAX,
    torch.optim.NAdam: NADAM,
    torch.optim.RAdam: RADAM,
    torch.optim.SparseAdam: SPARSE_ADAM,
    torch.optim.RMSprop: Rule(
        _rmsprop,
        ("lr", "alpha", "eps", "weight_decay", "momentum"),
        {"square_avg": None, "momentum_buffer": "momentum", "grad_avg": "centered"},
    ),
    torch.optim.Adagrad: Rule(
        _adagrad,
        ("lr", "lr_decay", "weight_decay", "eps"),
        {"sum": None},
        initial={"sum": "initial_accumulator_value"},
    ),
    torch.optim.Adadelta: Rule(
        _adadelta,
        ("lr", "rho", "eps", "weight_decay"),
        {"square_avg": None, "acc_delta": None},
    ),
}
"""The rule of each class. AdamW is Adam with the option ``decoupled_weight_decay``."""
