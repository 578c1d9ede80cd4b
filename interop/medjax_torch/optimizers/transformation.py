"""A torch optimizer as an optax transformation whose hyperparameters are part of its state.

The values that the host sets are leaves of `OptimizerState.hyperparams`, so changing a learning
rate, a momentum or a weight decay does not recompile the step. Values that depend on the number of
updates are computed on the device from the count of each parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from medjax import sharding
from medjax.optimizer.decay import decays
from medjax_torch.optimizers.groups import GroupPlan
from medjax_torch.optimizers.rule import TOUCH, Hyperparams, Slots, listed, update_parameter


class OptimizerState(NamedTuple):
    """State of `make_transformation`.

    Attributes
    ----------
    hyperparams : tuple of dict
        From `groups.read_hyperparams`, one entry for each parameter group.
    moments : dict
        The slots of each parameter under torch's names; ``step``, int32 of shape (), counts the
        updates of the parameter.
    """

    hyperparams: tuple[Hyperparams, ...]
    moments: dict[str, Slots]


def make_transformation(
    plan: tuple[GroupPlan, ...],
    hyperparams: tuple[Hyperparams, ...],
    absent: Collection[str] = (),
    learning_rate: jax.Array | float | None = None,
) -> optax.GradientTransformation:
    """Return a transformation with the same updates as the torch optimizer of `plan`.

    Parameters
    ----------
    plan : tuple of GroupPlan
        From `groups.plan_groups`.
    hyperparams : tuple of dict
        From `groups.read_hyperparams`, the initial hyperparameters of the state.
    absent : collection of str
        Parameters without a gradient (None in torch). Neither they nor their moments change,
        whatever the decay, and they may be missing from the params. The same holds for parameters
        missing from the gradients.
    learning_rate : scalar, optional
        The current learning rate, traced, if an optax schedule or a warm-up determines it; the
        rates of all groups are scaled by its ratio to that of the first group whose rate is not 0.
        By default the rates are those of the hyperparameters.

    Returns
    -------
    optax.GradientTransformation
        A transformation of flat dicts ``{name: array}``. Parameters that are in no group never
        change. Arithmetic is at least float32; moments have the dtype of their parameter, as in
        torch.
    """
    frozen = frozenset(absent)

    def init(params: dict[str, jax.Array]) -> OptimizerState:
        updated = {name for group in plan for name in group.names}
        missing = sorted(updated - set(params) - frozen)
        if missing:
            msg = f"the optimizer updates {', '.join(missing)}; expected all of them in params"
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
            raise ValueError("the update of a torch optimizer needs params, but they are None")
        deltas = jax.tree.map(jnp.zeros_like, params)
        moments = dict(state.moments)
        factor = factor_of(learning_rate, state.hyperparams)
        for group, own in zip(plan, state.hyperparams, strict=True):
            numbers = _scaled(own, factor)
            for name in group.names:
                gradient = updates.get(name)
                if name not in frozen and gradient is not None:
                    delta, moments[name] = _update_one(
                        gradient, params[name], moments[name], numbers, group
                    )
                    deltas[name] = delta.astype(params[name].dtype)
        return deltas, OptimizerState(state.hyperparams, moments)

    return optax.GradientTransformation(init, update)


def decaying(
    transformation: optax.GradientTransformation,
    groups: Sequence[Sequence[str]],
    weight_decay: float,
    learning_rate: jax.Array | float | None = None,
    *,
    is_marked_by_rows: bool = False,
) -> optax.GradientTransformation:
    """Return a transformation with decoupled weight decay, which AdamW of torch has of its own.

    Parameters
    ----------
    transformation : optax.GradientTransformation
        A transformation with an `OptimizerState`.
    groups : sequence of sequence of str
        The parameters of each group that are updated.
    weight_decay : float
        Multiplied by the rate of a group, the share that an update takes from its parameters; see
        `medjax.Options` for those that do not decay.
    learning_rate : scalar, optional
        As for `make_transformation`.
    is_marked_by_rows : bool
        Whether only those rows decay that have a gradient, as SparseAdam updates no others.
    """

    def update(updates: Any, state: OptimizerState, params: Any = None) -> Any:
        deltas, after = transformation.update(updates, state, params)
        factor = factor_of(learning_rate, state.hyperparams)
        decayed = decays(params)
        for names, own in zip(groups, state.hyperparams, strict=True):
            share = own["lr"] * weight_decay * (1.0 if factor is None else factor)
            for name in names:
                gradient = updates.get(name)
                if gradient is None or not decayed[name]:
                    continue
                decay = share * params[name]
                if is_marked_by_rows:
                    decay = jnp.where(listed(gradient), decay, 0)
                deltas[name] = deltas[name] - decay
        return deltas, after

    return optax.GradientTransformation(transformation.init, update)


def leaving_alone(
    transformation: optax.GradientTransformation,
    names: Collection[str],
    *,
    is_marked_by_rows: bool = False,
) -> optax.GradientTransformation:
    """Return a transformation that does not change parameters without a gradient.

    Parameters
    ----------
    transformation : optax.GradientTransformation
        A transformation with an `OptimizerState`.
    names : collection of str
        Parameters that only some batches give a gradient. A gradient that is 0 everywhere means
        that there is none, and neither the parameter nor its moments change; see `rule.touched`.
    is_marked_by_rows : bool
        Whether the optimizer reads the marks itself, as SparseAdam does.
    """
    if not names:
        return transformation

    def update(updates: Any, state: OptimizerState, params: Any = None) -> Any:
        # An optimizer that uses the sign would turn a mark into a full step.
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
"""The largest value that a mark can have after clipping and averaging."""


def factor_of(learning_rate: Any, hyperparams: tuple[Hyperparams, ...]) -> Any:
    """Return the factor of the groups' learning rates; None if they are used unchanged."""
    if learning_rate is None:
        return None
    first = hyperparams[0]["lr"]
    for later in hyperparams[1:]:
        first = jnp.where(first == 0, later["lr"], first)
    return jnp.where(first == 0, 1.0, learning_rate / jnp.where(first == 0, 1.0, first))


def _scaled(numbers: Hyperparams, factor: Any) -> Hyperparams:
    if factor is None:
        return numbers
    scaled = {**numbers, "lr": numbers["lr"] * factor}
    if "kept" in numbers:  # decoupled decay: 1 - lr * weight_decay
        scaled["kept"] = 1.0 - (1.0 - numbers["kept"]) * factor
    return scaled


def _initial_slots(parameter: jax.Array, group: GroupPlan) -> Slots:
    slots = {"step": jnp.zeros((), jnp.int32)}
    for name, option in group.rule.slots.items():
        if option is None or option in group.switches:
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
    delta, new = update_parameter(group.rule, gradient, parameter, wide, numbers, group.switches)
    return delta, {name: new[name].astype(old.dtype) for name, old in slots.items()}


def _widen(leaf: jax.Array) -> jax.Array:
    is_narrow = jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4
    return leaf.astype(jnp.float32) if is_narrow else leaf


def _is_state(node: Any) -> bool:
    return isinstance(node, OptimizerState)


def find_state(opt_state: optax.OptState) -> OptimizerState:
    """Return the `OptimizerState` within the state of an optax chain or wrapper.

    Raises
    ------
    ValueError
        If there is not exactly one.
    """
    states = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_state) if _is_state(node)]
    if len(states) != 1:
        raise ValueError(f"opt_state has {len(states)} states of a torch optimizer; expected 1")
    state: OptimizerState = states[0]
    return state


def replace_state(opt_state: optax.OptState, state: OptimizerState) -> optax.OptState:
    """Return `opt_state` with its `OptimizerState` replaced by `state`."""
    find_state(opt_state)
    return jax.tree.map(
        lambda node: state if _is_state(node) else node, opt_state, is_leaf=_is_state
    )


def set_hyperparams(
    opt_state: optax.OptState, hyperparams: tuple[Hyperparams, ...]
) -> optax.OptState:
    """Return `opt_state` with new hyperparameters for the next updates.

    Parameters
    ----------
    opt_state : pytree
        State of an optax transformation around one of `make_transformation`.
    hyperparams : tuple of dict
        From `groups.read_hyperparams`. They get the shardings of the old ones, as others would
        recompile the step.
    """
    state = find_state(opt_state)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.hyperparams)
    return replace_state(
        opt_state, state._replace(hyperparams=sharding.put(hyperparams, shardings))
    )
