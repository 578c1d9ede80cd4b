"""The form of an update rule, and the parts that all torch.optim classes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Hyperparams = dict[str, Any]
"""Hyperparameters of one parameter group: float32 scalars, and a `Decay` for each decay rate."""

Slots = dict[str, jax.Array]
"""State of one parameter under torch's names; ``step`` is int32, shape ()."""

Switches = frozenset[str]
"""Switches of a group that are on; they select code, so changing one requires recompilation."""

TOUCH = 1e-30
"""Marks a gradient that exists but is 0, since a gradient of 0 also means that there is none.

In float32 it is far below the last digit of any weight, but it survives clipping and averaging.
"""

Update = Callable[[jax.Array, Slots, Hyperparams, Switches], tuple[jax.Array, Slots]]


def touched(gradient: jax.Array) -> jax.Array:
    """Mark a gradient as existing, by making at least one element nonzero."""
    flat = gradient.reshape(-1)
    tiny = max(TOUCH, float(jnp.finfo(gradient.dtype).tiny))
    return flat.at[:1].add(tiny).reshape(gradient.shape)


def listed(gradient: jax.Array) -> jax.Array:
    """Return the rows that a sparse gradient of torch lists: those with an element that is not 0.

    Those of listed rows that are all 0 are marked; see `TOUCH`.
    """
    return jnp.any(gradient != 0, axis=tuple(range(1, gradient.ndim)), keepdims=True)


class Rule(NamedTuple):
    """How a class of torch.optim updates a parameter.

    Attributes
    ----------
    update : callable
        ``update(gradient, slots, hyperparams, switches) -> (delta, slots)``. ``slots["step"]`` is
        already incremented, and coupled weight decay is already added to the gradient.
    numbers : tuple of str
        Entries of a torch parameter group that the rule reads.
    slots : mapping
        State arrays of the parameter's shape, each with the option that it requires, or None.
    scalars : mapping
        Further float32 slots of shape (), each with its first value.
    initial : mapping
        For slots that do not start at 0, the entry of ``optimizer.defaults`` with the first value.
    step : {"tensor", "int", "absent"}
        How torch stores the update count.
    """

    update: Update
    numbers: tuple[str, ...]
    slots: Mapping[str, str | None]
    scalars: Mapping[str, float] = {}
    initial: Mapping[str, str] = {}
    step: Literal["tensor", "int", "absent"] = "tensor"


def update_parameter(
    rule: Rule,
    gradient: jax.Array,
    parameter: jax.Array,
    slots: Slots,
    hyperparams: Hyperparams,
    switches: Switches,
) -> tuple[jax.Array, Slots]:
    """Return the change of a parameter, and its new slots.

    This includes what all classes have in common: ``maximize`` negates the gradient, coupled weight
    decay adds ``weight_decay * parameter`` to it, and decoupled decay first multiplies the
    parameter by ``kept``, which is 1 - lr * weight_decay.
    """
    if "maximize" in switches:
        gradient = -gradient
    if "weight_decay" in hyperparams:
        gradient = gradient + hyperparams["weight_decay"] * parameter
    slots = {**slots, "step": slots["step"] + 1}
    delta, slots = rule.update(gradient, slots, hyperparams, switches)
    if "kept" in hyperparams:
        # 1 - lr * weight_decay has few digits in float32 (1e-7 becomes 1.2e-7), but torch
        # multiplies by it, and without the same rounding the two would drift apart.
        delta = (parameter * hyperparams["kept"] + delta) - parameter
    return delta, slots
