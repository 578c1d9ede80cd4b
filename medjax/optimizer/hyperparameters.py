"""Hyperparameters that `optax.inject_hyperparams` keeps in the state of an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.optimizer.dataflow import depend_on
from medjax.optimizer.rate import is_injected

__all__ = ["configured_hyperparameters", "with_hyperparameters"]

_NUMBERS = (jnp.bool_, jnp.integer, jnp.floating)


def configured_hyperparameters(
    optimizer: optax.GradientTransformation, params: Any, state: Any
) -> dict[str, Any]:
    """Return the injected hyperparameters that a new state has, whatever the learning rate.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    params : pytree
        The parameters, or their shapes and dtypes.
    state : pytree
        From the optimizer's ``init``; shapes and dtypes suffice.

    Returns
    -------
    dict of str to number
        By name, after the path of their part of the optimizer if they belong to one; ready for
        JSON, so a number that is not finite is a str. Left out are those that depend on the rate
        or on the parameters, those with a schedule, which an update computes again, and arrays.

    Examples
    --------
    >>> from medjax.config import Options
    >>> from medjax.optimizer import make_optimizer
    >>> params = {"kernel": jnp.ones(2)}
    >>> inject = optax.inject_hyperparams(optax.sgd)
    >>> optimizer = make_optimizer(lambda rate: inject(rate, momentum=0.5), Options())
    >>> configured_hyperparameters(optimizer, params, optimizer.init(params))
    {'momentum': 0.5}
    """
    if not _numbers(state):
        return {}  # most optimizers; no need to trace them

    initial: Callable[..., Any] = optimizer.init

    def init(learning_rate: Any, params: Any) -> dict[str, Any]:
        return _numbers(initial(params, learning_rate=learning_rate))

    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    rate = jax.ShapeDtypeStruct((), jnp.float32)
    traced, found = jax.make_jaxpr(init, return_shape=True)(rate, shapes)
    depend = depend_on(traced, [True] * len(traced.in_avals))
    # The outputs of a traced function that returns a dict are in the order of the sorted keys.
    fixed = [name for name, varies in zip(sorted(found), depend, strict=True) if not varies]

    def constants() -> dict[str, Any]:
        # The compiler leaves out what these do not need, the zeros too.
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        fresh = init(jnp.float32(0), zeros)
        return {name: fresh[name] for name in fixed}

    values = {name: value.item() for name, value in jax.device_get(jax.jit(constants)()).items()}
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def with_hyperparameters(
    state: Any, values: Mapping[str, Any], put: Callable[[np.ndarray], jax.Array]
) -> Any:
    """Set injected hyperparameters in the state of an optimizer.

    Parameters
    ----------
    state : pytree
        A state of the optimizer of `make_optimizer`.
    values : mapping of str to number
        Of `configured_hyperparameters`.
    put : callable
        Lays a host scalar out as the state is.

    Returns
    -------
    pytree
        The state, in which the hyperparameters of `values` have these values, in the dtype they
        had; everything else is unchanged.
    """

    def change(name: str, old: Any) -> Any:
        if name not in values:
            return old
        value = values[name]
        number = float(value) if isinstance(value, str) else value
        return put(np.asarray(number, old.dtype))

    return _mapped(state, change)


def _numbers(state: Any) -> dict[str, Any]:
    """Return the injected hyperparameters without a schedule that are scalar numbers."""
    found: dict[str, Any] = {}

    def note(name: str, value: Any) -> Any:
        if not value.shape and any(jnp.issubdtype(value.dtype, kind) for kind in _NUMBERS):
            found[name] = value
        return value

    _mapped(state, note)
    return found


def _mapped(state: Any, change: Callable[[str, Any], Any]) -> Any:
    """Return the state of `make_optimizer` with changed hyperparameters of the component's own."""
    # Names do not tell the place among clipping and decay, which may change at a resume.
    parts = tuple(_mapped_part(part, change, "") for part in state.inner_state)
    return state._replace(inner_state=parts)


def _mapped_part(state: Any, change: Callable[[str, Any], Any], prefix: str) -> Any:
    def visit(path: tuple[Any, ...], node: Any) -> Any:
        if not is_injected(node):
            return node
        where = prefix + jax.tree_util.keystr(path)
        scheduled = getattr(node, "hyperparams_states", {})
        hyperparams = {
            name: value if name in scheduled else change(f"{where}.{name}".lstrip("."), value)
            for name, value in node.hyperparams.items()
        }
        inner = _mapped_part(node.inner_state, change, f"{where}.inner_state")
        return node._replace(hyperparams=hyperparams, inner_state=inner)

    return jax.tree_util.tree_map_with_path(visit, state, is_leaf=is_injected)
