"""What an update rule is, and what the rules of all torch.optim classes share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax

Hyperparams = dict[str, Any]
"""Numbers of one parameter group: float32 scalars, and a `Decay` for every decay rate."""

Slots = dict[str, jax.Array]
"""State of one parameter under torch's names; ``step`` is int32, shape ()."""

Options = frozenset[str]
"""Switches of a group that are on; they select code, so changing one would compile anew."""

Update = Callable[[jax.Array, Slots, Hyperparams, Options], tuple[jax.Array, Slots]]


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
    decay adds ``wd * parameter`` to it, decoupled decay adds ``-lr * wd * parameter`` to the
    result.
    """
    if "maximize" in options:
        gradient = -gradient
    decay = hyperparams.get("weight_decay")
    decoupled = "decoupled_weight_decay" in options
    if decay is not None and not decoupled:
        gradient = gradient + decay * parameter
    slots = {**slots, "step": slots["step"] + 1}
    delta, slots = rule.update(gradient, slots, hyperparams, options)
    if decoupled:
        delta = delta - hyperparams["lr"] * decay * parameter
    return delta, slots
