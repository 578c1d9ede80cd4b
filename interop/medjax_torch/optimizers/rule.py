"""What an update rule is, and what the rules of all torch.optim classes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

Hyperparams = dict[str, Any]
"""Numbers of one parameter group: float32 scalars, and a `Decay` for every decay rate."""

Slots = dict[str, jax.Array]
"""State of one parameter under torch's names; ``step`` is int32, shape ()."""

Options = frozenset[str]
"""Switches of a group that are on; they select code, so changing one would compile anew."""

TOUCH = 1e-30
"""Stands in a gradient that exists though it is 0, since 0 also says that there is none.

In float32 it is far below the last digit of any weight, yet it survives clipping and averaging.
"""

Update = Callable[[jax.Array, Slots, Hyperparams, Options], tuple[jax.Array, Slots]]


def touched(gradient: jax.Array) -> jax.Array:
    """Return a gradient of which one element at least is not 0."""
    flat = gradient.reshape(-1)
    tiny = max(TOUCH, float(jnp.finfo(gradient.dtype).tiny))
    return flat.at[:1].add(tiny).reshape(gradient.shape)


class Rule(NamedTuple):
    """How one class of torch.optim updates a parameter.

    Attributes
    ----------
    update : callable
        ``update(gradient, slots, hyperparams, options) -> (delta, slots)``; ``slots["step"]`` has
        been counted up and coupled weight decay is in the gradient already.
    numbers : tuple of str
        Entries of a torch parameter group that the rule reads.
    slots : mapping
        Arrays of a parameter's shape that are kept, each with the option it needs, or None.
    scalars : mapping
        Further slots of shape (), each with its first value; float32.
    initial : mapping
        Where a slot does not start at 0: the entry of ``optimizer.defaults`` it starts at.
    step : {"tensor", "int", "absent"}
        How torch keeps the update count.
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
    options: Options,
) -> tuple[jax.Array, Slots]:
    """Return what is added to a parameter, and its new slots.

    What the classes share happens here: ``maximize`` turns the gradient round, coupled weight
    decay adds ``weight_decay * parameter`` to it, decoupled decay first multiplies the parameter
    by ``kept``, which is 1 - lr * weight_decay.
    """
    if "maximize" in options:
        gradient = -gradient
    if "weight_decay" in hyperparams:
        gradient = gradient + hyperparams["weight_decay"] * parameter
    slots = {**slots, "step": slots["step"] + 1}
    delta, slots = rule.update(gradient, slots, hyperparams, options)
    if "kept" in hyperparams:
        # 1 - lr * weight_decay has few digits in float32 (1e-7 becomes 1.2e-7). torch multiplies
        # by it all the same, and so must this, or the two drift apart.
        delta = (parameter * hyperparams["kept"] + delta) - parameter
    return delta, slots
