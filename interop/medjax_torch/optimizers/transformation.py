"""A torch optimizer as an optax transformation whose hyperparameters are part of its state.

All that the host sets are leaves of `OptimizerState.hyperparams`, so that changing a learning rate,
a momentum or a weight decay compiles nothing; all that depends on the number of updates is
computed on the device from the count of each parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from medjax import sharding
from medjax_torch.optimizers.groups import GroupPlan
from medjax_torch.optimizers.rule import TOUCH, Hyperparams, Slots, update_parameter


class OptimizerState(NamedTuple):
    """State of `make_transformation`.

    Attributes
    ----------
    hyperparams : tuple of dict
        From `groups.read_hyperparams`: one entry for each parameter group.
    moments : dict
        For each parameter its slots, under torch's names; ``step`` (int32, shape ()) counts the
        updates of this parameter.
    """

    hyperparams: tuple[Hyperparams, ...]
    moments: dict[str, Slots]


def make_transformation(
    plan: tuple[GroupPlan, ...],
    hyperparams: tuple[Hyperparams, ...],
    absent: Collection[str] = (),
    learning_rate: jax.Array | float | None = None,
) -> optax.GradientTransformation:
    """Return the transformation that updates as the torch optimizer behind `plan` would.

    Parameters
    ----------
    plan : tuple of GroupPlan
        From `groups.plan_groups`.
    hyperparams : tuple of dict
        From `groups.read_hyperparams`, what the state starts with.
    absent : collection of str
        Parameters that get no gradient (None in torch): neither they nor their moments change,
        whatever the decay; they need not be among the params. The same holds for those left out
        of the gradients.
    learning_rate : scalar, optional
        Rate in force, traced, where an optax schedule or a warm-up decides it: the rates of all
        groups are scaled by its ratio to that of the first group. By default they stay what
        `hyperparams` says.

    Returns
    -------
    optax.GradientTransformation
        Over flat dicts ``{name: array}``. Parameters in no group are never changed. Arithmetic is
        in float32 at least; moments have the dtype of their parameter, as in torch.
    """
    frozen = frozenset(absent)

    def init(params: dict[str, jax.Array]) -> OptimizerState:
        held = {name for group in plan for name in group.names}
        missing = sorted(held - set(params) - frozen)
        if missing:
            msg = f"the optimizer updates {', '.join(missing)}; expected names among the params"
            raise ValueError(msg)
        moments = {
            name: _initial_slots(params[name], group)
            for group in plan
            for name in group.names
            if name in params
        }
        return OptimizerState(jax.tree.map(jnp.asarray, hyperparams), moments)

    def update(
        updates: dict[str, jax.Array],
        state: OptimizerState,
        params: dict[str, jax.Array] | None = None,
    ) -> tuple[dict[str, jax.Array], OptimizerState]:
        if params is None:
            raise ValueError("a torch optimizer's update needs params; found None")
        deltas = jax.tree.map(jnp.zeros_like, params)
        moments = dict(state.moments)
        factor = factor_of(learning_rate, state.hyperparams)
        for group, held in zip(plan, state.hyperparams, strict=True):
            numbers = _scaled(held, factor)
            for name in group.names:
                gradient = updates.get(name)
                if name not in frozen and gradient is not None:
                    delta, moments[name] = _update_one(
                        gradient, params[name], moments[name], numbers, group
                    )
                    deltas[name] = delta.astype(params[name].dtype)
        return deltas, OptimizerState(state.hyperparams, moments)

    return optax.GradientTransformation(init, update)


def leaving_alone(
    transformation: optax.GradientTransformation,
    names: Collection[str],
    *,
    is_marked_by_rows: bool = False,
) -> optax.GradientTransformation:
    """Return a transformation that leaves parameters alone where they got no gradient.

    Parameters
    ----------
    transformation : optax.GradientTransformation
        With an `OptimizerState`.
    names : collection of str
        Parameters that get a gradient from some batches only. Where all of it is 0 it was not
        there, and neither they nor their moments change; see `rule.touched`.
    is_marked_by_rows : bool
        Whether the optimizer reads the marks itself, as SparseAdam does.
    """
    if not names:
        return transformation

    def update(updates: Any, state: OptimizerState, params: Any = None) -> Any:
        # Of a sign, all that is left of the mark would be a whole step.
        marked = () if is_marked_by_rows else names
        unmarked = {name: _unmarked(updates[name]) for name in marked}
        deltas, after = transformation.update({**updates, **unmarked}, state, params)
        moments: dict[str, Slots] = dict(after.moments)
        for name in names:
            there = jnp.any(updates[name] != 0)
            deltas[name] = jnp.where(there, deltas[name], 0)
            if name in moments:
                choose = functools.partial(jnp.where, there)
                moments[name] = jax.tree.map(choose, moments[name], state.moments[name])
        return deltas, after._replace(moments=moments)

    return optax.GradientTransformation(transformation.init, update)


def _unmarked(gradient: jax.Array) -> jax.Array:
    return jnp.where(jnp.abs(gradient) <= _FAINT, 0, gradient)


_FAINT = 1e3 * TOUCH
"""Clipping and averaging leave a mark at most that large."""


def factor_of(learning_rate: Any, hyperparams: tuple[Hyperparams, ...]) -> Any:
    """Return what the groups' rates are multiplied by: exactly 1 if nothing but they decide."""
    if learning_rate is None:
        return None
    first = hyperparams[0]["lr"]
    return jnp.where(first == 0, 1.0, learning_rate / jnp.where(first == 0, 1.0, first))


def _scaled(numbers: Hyperparams, factor: Any) -> Hyperparams:
    if factor is None:
        return numbers
    scaled = {**numbers, "lr": numbers["lr"] * factor}
    if "kept" in numbers:  # of a decoupled decay: 1 - lr * weight_decay
        scaled["kept"] = 1.0 - (1.0 - numbers["kept"]) * factor
    return scaled


def _initial_slots(parameter: jax.Array, group: GroupPlan) -> Slots:
    slots = {"step": jnp.zeros((), jnp.int32)}
    for name, option in group.rule.slots.items():
        if option is None or option in group.options:
            slots[name] = jnp.full_like(parameter, group.initial.get(name, 0.0))
    for name, value in group.rule.scalars.items():
        slots[name] = jnp.asarray(value, jnp.float32)
    return slots


def _update_one(
    gradient: jax.Array,
    parameter: jax.Array,
    slots: Slots,
    numbers: Hyperparams,
    group: GroupPlan,
) -> tuple[jax.Array, Slots]:
    wide: Slots
    gradient, parameter, wide = jax.tree.map(_widen, (gradient, parameter, slots))
    delta, new = update_parameter(group.rule, gradient, parameter, wide, numbers, group.options)
    return delta, {name: new[name].astype(old.dtype) for name, old in slots.items()}


def _widen(leaf: jax.Array) -> jax.Array:
    is_narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
    return leaf.astype(jnp.float32) if is_narrow else leaf


def _is_state(node: Any) -> bool:
    return isinstance(node, OptimizerState)


def find_state(opt_state: optax.OptState) -> OptimizerState:
    """Return the `OptimizerState` inside the state of a chain or wrapper of optax.

    Raises
    ------
    ValueError
        If there is not exactly one.
    """
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(node)]
    if len(found) != 1:
        raise ValueError(f"found {len(found)} states of a torch optimizer; expected 1")
    state: OptimizerState = found[0]
    return state


def replace_state(opt_state: optax.OptState, state: OptimizerState) -> optax.OptState:
    """Return `opt_state` with `state` in the place of the one that `find_state` finds."""
    find_state(opt_state)
    return jax.tree.map(
        lambda node: state if _is_state(node) else node, opt_state, is_leaf=_is_state
    )


def set_hyperparams(
    opt_state: optax.OptState, hyperparams: tuple[Hyperparams, ...]
) -> optax.OptState:
    """Return `opt_state` with the hyperparameters of the next updates.

    Parameters
    ----------
    opt_state : pytree
        State of an optax transformation around one of `make_transformation`.
    hyperparams : tuple of dict
        From `groups.read_hyperparams`; they are laid where the old ones lie, since an array that
        lies elsewhere would compile the step anew.
    """
    state = find_state(opt_state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.hyperparams)
    return replace_state(
        opt_state, state._replace(hyperparams=sharding.put(hyperparams, shardings))
    )
