"""Creating the optimizer of a run."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from medjax.config import Options
from medjax.optimizer.dataflow import depend_on
from medjax.optimizer.decay import decays
from medjax.optimizer.norm import clip_by_norm
from medjax.optimizer.probe import Probe, probe, update_with_rate
from medjax.optimizer.rate import Configure
from medjax.optimizer.refusals import as_transformation
from medjax.runtime.lent import owned

__all__ = ["make_optimizer", "updates_nothing", "uses_value"]

_Probed = Callable[[Any, Any], Probe]


def make_optimizer(configure: Configure, options: Options) -> optax.GradientTransformationExtraArgs:
    """Create the component's optimizer with clipping, weight decay and an injected learning rate.

    The step writes the rate to ``opt_state.hyperparams["learning_rate"]``. Whenever an update is
    traced, the component's optimizer is configured with that rate. The optimizer is tried when its
    state is created, so one that cannot run is refused before training.

    Parameters
    ----------
    configure : callable
        The component's `configure_optimizer`.
    options : Options
        For clipping and decay. Parameters whose update is zero by construction, as with
        `optax.set_to_zero`, do not count in the norm for clipping and do not decay. A
        `decay.SelfDecaying` optimizer has applied the decay itself.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        ``init`` takes ``learning_rate``, with which the state is created, by default 0. ``update``
        takes ``value``, the loss of the gradients, and passes it to an optimizer that accepts it.

    Examples
    --------
    >>> optimizer = make_optimizer(optax.sgd, Options())
    >>> params = {"kernel": jnp.ones((1, 2))}
    >>> state = optimizer.init(params, learning_rate=0.5)
    >>> updates, state = optimizer.update(params, state, params)
    >>> updates["kernel"].tolist()
    [[-0.5, -0.5]]
    """
    probed = _remembered(configure, options)

    def build(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
        return _around(configure, options, probed, learning_rate)

    injected = optax.inject_hyperparams(build)

    def init(params: Any, *, learning_rate: float = 0.0) -> Any:
        return injected(learning_rate=jnp.asarray(learning_rate, jnp.float32)).init(params)

    # A placeholder, as the current rate is in the state. A JAX array would be kept alive here.
    update = injected(learning_rate=np.zeros((), np.float32)).update
    # On the function itself: a registry of its own would keep what the probe closes over alive.
    vars(update)[_PROBE] = probed
    return optax.GradientTransformationExtraArgs(init, update)


def updates_nothing(optimizer: optax.GradientTransformation, params: Any) -> bool:
    """Return whether the update of every parameter is zero by construction.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    params : pytree
        Arrays, or their shapes and dtypes.

    Examples
    --------
    >>> params = {"kernel": jnp.ones((1, 2))}
    >>> updates_nothing(make_optimizer(lambda rate: optax.set_to_zero(), Options()), params)
    True
    """
    probed: _Probed = vars(owned(optimizer.update))[_PROBE]
    frozen = probed(params, params).frozen
    return len(frozen) == len(jax.tree.leaves(params))


_PROBE = "medjax_probe"
"""The attribute of an update function that knows the properties of its optimizer."""


def uses_value(optimizer: optax.GradientTransformation, params: Any) -> bool:
    """Return whether the updates of an optimizer depend on the value of the loss.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    params : pytree
        Arrays, or their shapes and dtypes.

    Examples
    --------
    >>> params = {"kernel": jnp.ones((1, 2))}
    >>> uses_value(make_optimizer(optax.sgd, Options()), params)
    False
    >>> uses_value(make_optimizer(lambda rate: optax.polyak_sgd(scaling=rate), Options()), params)
    True
    """

    def update(params: Any, state: Any, value: Any) -> Any:
        return optax.with_extra_args_support(optimizer).update(params, state, params, value=value)

    known = _USES_VALUE.setdefault(owned(optimizer.update), {})
    key = _kinds(params)
    if key not in known:
        state = jax.eval_shape(optimizer.init, params)
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        traced = jax.make_jaxpr(update)(params, state, scalar)
        known[key] = any(depend_on(traced, [False] * (len(traced.in_avals) - 1) + [True]))
    return known[key]


_USES_VALUE: weakref.WeakKeyDictionary[Any, dict[Any, bool]] = weakref.WeakKeyDictionary()
"""Results of `uses_value`, by the update function of the optimizer, for as long as it lives."""


def _kinds(tree: Any) -> Hashable:
    """Return the structure, shapes and dtypes of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, *((leaf.shape, leaf.dtype) for leaf in leaves)


def _remembered(configure: Configure, options: Options) -> _Probed:
    """Return a function that calls `probe` only once for each structure of parameters."""
    known: dict[Any, Probe] = {}

    def probed(params: Any, gradients: Any) -> Probe:
        key = _kinds((params, gradients))
        if key not in known:
            known[key] = probe(configure, options, params, gradients)
        return known[key]

    return probed


def _around(
    configure: Configure, options: Options, probed: _Probed, learning_rate: Any
) -> optax.GradientTransformationExtraArgs:
    """Chain clipping, the component's optimizer and decay, in that order, for one learning rate."""

    def init(params: Any) -> Any:
        return chain(probed(params, params), params).init(params)

    def update(
        gradients: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ) -> Any:
        properties = probed(params, gradients)
        if properties.accepts_value and value is not None:
            extra["value"] = value
        return chain(properties, params).update(gradients, state, params, **extra)

    def chain(properties: Probe, params: Any) -> optax.GradientTransformationExtraArgs:
        parts = [_inner(configure, learning_rate, properties)]
        if options.max_grad_norm is not None:
            parts.insert(0, _clip(options.max_grad_norm, properties.frozen))
        if options.weight_decay:
            # After the optimizer and scaled by the rate: the decoupled decay of AdamW.
            rate = -learning_rate * options.weight_decay
            mask = jax.tree.map(operator.and_, decays(params), _trained(params, properties.frozen))
            if properties.decays:
                # The part remains, since the form of a checkpoint contains it.
                mask = jax.tree.map(lambda _: False, mask)
            parts.append(optax.add_decayed_weights(rate, mask=mask))
        return optax.chain(*parts)

    return optax.GradientTransformationExtraArgs(init, update)


def _inner(
    configure: Configure, learning_rate: Any, properties: Probe
) -> optax.GradientTransformationExtraArgs:
    """Return the component's optimizer for one learning rate."""

    def init(params: Any) -> Any:
        state = as_transformation(configure(learning_rate)).init(params)
        return without_empty(
            jax.tree.map(lambda leaf, kind: jnp.asarray(leaf, kind.dtype), state, properties.state)
        )

    def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        state = jax.tree.map(
            lambda kind, leaf: leaf if kind.size else jnp.zeros(kind.shape, kind.dtype),
            properties.state,
            state,
        )
        updates, state = update_with_rate(
            configure, learning_rate, gradients, state, params, **extra
        )
        return updates, without_empty(state)

    def without_empty(state: Any) -> Any:
        # Orbax cannot store arrays without elements, and optimizers such as galore have some.
        return jax.tree.map(lambda leaf: leaf if leaf.size else None, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _clip(max_norm: float, frozen: frozenset[str]) -> optax.GradientTransformation:
    """Return clipping by the global norm of the gradients of all parameters that are not frozen."""
    clip = optax.stateless(lambda gradients, _: clip_by_norm(gradients, max_norm))

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        del params
        masked = optax.masked(clip, _trained(gradients, frozen))
        return masked.update(gradients, optax.MaskedState(state))[0], state

    return optax.GradientTransformation(clip.init, update) if frozen else clip


def _trained(tree: Any, frozen: frozenset[str]) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path) not in frozen, tree
    )
