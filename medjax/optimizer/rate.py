"""Setting the learning rate in optimizers that keep it in their own state.

`optax.inject_hyperparams` copies the rate it gets into its state, and from then on reads it there.
The component's optimizer is configured again with the rate of each update, so the copy of an older
rate is corrected here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from medjax.optimizer.dataflow import depend_on

__all__ = ["Configure", "is_injected", "with_rate"]

Configure = Callable[[Any], optax.GradientTransformation]
"""See `medjax.component.ConfigureOptimizer`."""

_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)


def with_rate(state: Any, learning_rate: Any, configure: Configure, params: Any) -> Any:
    """Set the learning rate in the state of the component's optimizer.

    Parameters
    ----------
    state : pytree
        From the optimizer's ``init`` or last ``update``.
    learning_rate : jax.Array
        Rate of the next update, float32, shape ().
    configure : callable
        The component's `configure_optimizer`.
    params : pytree
        The parameters, or their shapes and dtypes.

    Returns
    -------
    pytree
        The state. Hyperparameters kept by `optax.inject_hyperparams` that depend on the rate have
        the values they would have if the rate had been this one from the start; everything else is
        unchanged.

    Examples
    --------
    >>> configure = optax.inject_hyperparams(optax.sgd)
    >>> params = {"kernel": jnp.ones(2)}
    >>> state = with_rate(configure(0.5).init(params), jnp.float32(0.25), configure, params)
    >>> float(state.hyperparams["learning_rate"])
    0.25
    """
    nodes = jax.tree.leaves(state, is_leaf=is_injected)
    if not any(map(is_injected, nodes)):
        return state

    def init(learning_rate: Any, params: Any) -> Any:
        return configure(learning_rate).init(params)

    traced = jax.make_jaxpr(init)(jnp.float32(0), params)
    of_rate = [True] + [False] * len(jax.tree.leaves(params))
    follows = jax.tree.unflatten(jax.tree.structure(state), depend_on(traced, of_rate))
    return _corrected(state, init(learning_rate, params), follows)


def is_injected(node: Any) -> bool:
    """Return whether a part of a state is that of `optax.inject_hyperparams`."""
    return isinstance(node, _INJECTED)


def _corrected(state: Any, fresh: Any, follows: Any) -> Any:
    """Return `state` with the hyperparameters of `fresh` where `follows` says so."""

    def correct(old: Any, new: Any, marks: Any) -> Any:
        if not is_injected(old):
            return old
        hyperparams = {
            name: jnp.asarray(new.hyperparams[name]).astype(jnp.asarray(value).dtype)
            if marks.hyperparams[name]
            else value
            for name, value in old.hyperparams.items()
        }
        inner = _corrected(old.inner_state, new.inner_state, marks.inner_state)
        return old._replace(hyperparams=hyperparams, inner_state=inner)

    return jax.tree.map(correct, state, fresh, follows, is_leaf=is_injected)
