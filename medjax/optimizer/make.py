"""The optimizer of a run."""

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
from medjax.lent import owned
from medjax.optimizer.dataflow import depend_on
from medjax.optimizer.decay import decays
from medjax.optimizer.probe import Probe, probe, update_with_rate
from medjax.optimizer.rate import Configure
from medjax.optimizer.refusals import as_transformation

_Probed = Callable[[Any, Any], Probe]


def make_optimizer(configure: Configure, options: Options) -> optax.GradientTransformationExtraArgs:
    """Return the component's optimizer with clipping and decay, its learning rate injectable.

    The rate stands in ``opt_state.hyperparams["learning_rate"]``, where the step writes it; the
    component's optimizer is built with it anew, while its update is traced. The optimizer is probed
    when its state is made, so that what cannot run is refused before training.

    Parameters
    ----------
    configure : callable
        The component's `configure_optimizer`.
    options : Options
        Clipping and decay. Neither counts nor moves a parameter whose update is zero by
        construction, as `optax.set_to_zero` makes it.

    Returns
    -------
    optax.GradientTransformationExtraArgs
        ``init`` takes ``learning_rate``, with which the state is made, by default 0; ``update``
        takes ``value``, the loss that the gradients are of, and hands it to an optimizer that
        accepts it.
    """
    probed = _remembered(configure, options)

    def build(learning_rate: Any) -> optax.GradientTransformationExtraArgs:
        return _around(configure, options, probed, learning_rate)

    injected = optax.inject_hyperparams(build)

    def init(params: Any, *, learning_rate: float = 0.0) -> Any:
        return injected(learning_rate=jnp.asarray(learning_rate, jnp.float32)).init(params)

    # The rate in force stands in the state. Of numpy here: an array of JAX would be kept alive.
    update = injected(learning_rate=np.zeros((), np.float32)).update
    return optax.GradientTransformationExtraArgs(init, update)


def uses_value(optimizer: optax.GradientTransformation, params: Any) -> bool:
    """Return whether an optimizer of `make_optimizer` depends on the value of the loss.

    Parameters
    ----------
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    params : pytree
        Arrays, or their shapes and types.
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
"""What was found out, by the update of the optimizer, for as long as it lives."""


def _kinds(tree: Any) -> Hashable:
    """Return structure, shapes and types of a tree."""
    leaves, structure = jax.tree.flatten(tree)
    return structure, *((leaf.shape, leaf.dtype) for leaf in leaves)


def _remembered(configure: Configure, options: Options) -> _Probed:
    """Return `probe` of an optimizer, which tries it once for each structure of parameters."""
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
    """Return clipping, the component's optimizer and decay, in that order, at one rate."""

    def init(params: Any) -> Any:
        return chain(probed(params, params), params).init(params)

    def update(
        gradients: Any, state: Any, params: Any = None, *, value: Any = None, **extra: Any
    ) -> Any:
        found = probed(params, gradients)
        if found.accepts_value and value is not None:
            extra["value"] = value
        return chain(found, params).update(gradients, state, params, **extra)

    def chain(found: Probe, params: Any) -> optax.GradientTransformationExtraArgs:
        parts = [_inner(configure, learning_rate, found)]
        if options.max_grad_norm is not None:
            parts.insert(0, _clip(options.max_grad_norm, found.frozen))
        if options.weight_decay:
            # After the optimizer and scaled by the rate: the decoupled decay of AdamW.
            rate = -learning_rate * options.weight_decay
            mask = jax.tree.map(operator.and_, decays(params), _trained(params, found.frozen))
            parts.append(optax.add_decayed_weights(rate, mask=mask))
        return optax.chain(*parts)

    return optax.GradientTransformationExtraArgs(init, update)


def _inner(
    configure: Configure, learning_rate: Any, found: Probe
) -> optax.GradientTransformationExtraArgs:
    """Return the component's optimizer at a rate."""

    def init(params: Any) -> Any:
        state = as_transformation(configure(learning_rate)).init(params)
        return held(
            jax.tree.map(lambda leaf, kind: jnp.asarray(leaf, kind.dtype), state, found.state)
        )

    def update(gradients: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        state = jax.tree.map(
            lambda kind, leaf: leaf if kind.size else jnp.zeros(kind.shape, kind.dtype),
            found.state,
            state,
        )
        updates, state = update_with_rate(
            configure, learning_rate, gradients, state, params, **extra
        )
        return updates, held(state)

    def held(state: Any) -> Any:
        # Orbax stores no array without elements, of which galore keeps some.
        return jax.tree.map(lambda leaf: leaf if leaf.size else None, state)

    return optax.GradientTransformationExtraArgs(init, update)


def _clip(max_norm: float, frozen: frozenset[str]) -> optax.GradientTransformation:
    """Return clipping by the global norm of the gradients of parameters that are trained."""
    clip = optax.clip_by_global_norm(max_norm)

    def update(gradients: Any, state: Any, params: Any = None) -> Any:
        del params
        masked = optax.masked(clip, _trained(gradients, frozen))
        return masked.update(gradients, optax.MaskedState(state))[0], state

    return optax.GradientTransformation(clip.init, update) if frozen else clip


def _trained(tree: Any, frozen: frozenset[str]) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path) not in frozen, tree
    )
