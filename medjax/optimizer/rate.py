"""The learning rate of a run in force in optimizers that keep one in their own state.

`optax.inject_hyperparams` copies the rate it is given into its state and reads it from there ever
after. The component's optimizer is built anew at each update, with the rate of that update, so that
what was copied from an older one is put right here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax.optimizer.dataflow import depend_on

Configure = Callable[[Any], optax.GradientTransformation]
"""See `medjax.component.ConfigureOptimizer`."""

_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def with_rate(state: Any, learning_rate: Any, configure: Configure, params: Any) -> Any:
    """Return the state of the component's optimizer with `learning_rate` in force.

    Parameters
    ----------
    state : pytree
        What the optimizer's ``init`` made, or its last ``update``.
    learning_rate : jax.Array
        Rate of the next update, float32, shape ().
    configure : callable
        The component's `configure_optimizer`.
    params : pytree
        The parameters, or their shapes and types.

    Returns
    -------
    pytree
        Of hyperparameters that `optax.inject_hyperparams` keeps, those that depend on the rate are
        what they would be if it had been this one from the start; all others are as they were.
    """
    nodes = jax.tree.leaves(state, is_leaf=_is_injected)
    if not any(map(_is_injected, nodes)):
        return state

    def init(learning_rate: Any, params: Any) -> Any:
        return configure(learning_rate).init(params)

    traced = jax.make_jaxpr(init)(jnp.float32(0), params)
    of_rate = [True] + [False] * len(jax.tree.leaves(params))
    follows = jax.tree.unflatten(jax.tree.structure(state), depend_on(traced, of_rate))
    return _put_right(state, init(learning_rate, params), follows)


def _is_injected(node: Any) -> bool:
    return isinstance(node, _INJECTED)


def _put_right(state: Any, fresh: Any, follows: Any) -> Any:
    def put_right(old: Any, new: Any, marks: Any) -> Any:
        if not _is_injected(old):
            return old
        hyperparams = {
            name: jnp.asarray(new.hyperparams[name]).astype(jnp.asarray(value).dtype)
            if marks.hyperparams[name]
            else value
            for name, value in old.hyperparams.items()
        }
        inner = _put_right(old.inner_state, new.inner_state, marks.inner_state)
        return old._replace(hyperparams=hyperparams, inner_state=inner)

    return jax.tree.map(put_right, state, fresh, follows, is_leaf=_is_injected)
