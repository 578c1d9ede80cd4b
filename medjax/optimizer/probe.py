"""Finding out what the component's optimizer does before training, by tracing it.

Running it would say little: the first update may be zero because the optimizer has a warm-up that
starts at zero, and yet its parameters are trained.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr

from medjax.config import Options
from medjax.optimizer.dataflow import depend_on, known_zeros
from medjax.optimizer.decay import SelfDecaying
from medjax.optimizer.rate import Configure, with_rate
from medjax.optimizer.refusals import as_transformation, check_known, refuse

__all__ = ["Probe", "probe", "update_with_rate"]


class Probe(NamedTuple):
    """Properties of an optimizer, for parameters of certain names and shapes.

    Attributes
    ----------
    state : pytree
        Shapes of its state, and the dtypes that it has after a few updates.
    accepts_value : bool
        Whether ``update`` takes the loss as ``value``.
    uses_value : bool
        Whether its updates or its state depend on the loss.
    frozen : frozenset of str
        Paths of the parameters whose update is zero by construction.
    decays : bool
        Whether its updates contain the decay of `Options.weight_decay`.
    """

    state: Any
    accepts_value: bool
    uses_value: bool
    frozen: frozenset[str]
    decays: bool


def update_with_rate(
    configure: Configure, learning_rate: Any, gradients: Any, state: Any, params: Any, **extra: Any
) -> tuple[Any, Any]:
    """Return the updates and the new state of the component's optimizer at a learning rate."""
    state = with_rate(state, learning_rate, configure, params)
    result: tuple[Any, Any] = as_transformation(configure(learning_rate)).update(
        gradients, state, params, **extra
    )
    return result


def probe(configure: Configure, options: Options, params: Any, gradients: Any) -> Probe:
    """Trace the component's optimizer and return its properties.

    Parameters
    ----------
    configure : callable
        The component's `configure_optimizer`.
    options : Options
        Options of the run.
    params, gradients : pytree
        Arrays, or their shapes and dtypes.

    Raises
    ------
    ValueError
        If a training step cannot run it; the message names it and says what to use instead.

    Examples
    --------
    >>> import optax
    >>> params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    >>> def configure(learning_rate):
    ...     parts = {"train": optax.adam(learning_rate), "freeze": optax.set_to_zero()}
    ...     return optax.partition(parts, {"kernel": "train", "bias": "freeze"})
    >>> probe(configure, Options(), params, params).frozen
    frozenset({"['bias']"})
    """
    params, gradients = jax.tree.map(_shape, (params, gradients))
    try:
        return _probe(configure, options, params, gradients)
    except (TypeError, KeyError, AttributeError, NotImplementedError) as error:
        refuse(error)


def _probe(configure: Configure, options: Options, params: Any, gradients: Any) -> Probe:
    decays = False

    def init(learning_rate: Any, params: Any) -> Any:
        nonlocal decays
        returned = configure(learning_rate)
        decays = isinstance(returned, SelfDecaying)
        return as_transformation(returned).init(params)

    def update(gradients: Any, state: Any, params: Any, learning_rate: Any, extra: Any) -> Any:
        return update_with_rate(configure, learning_rate, gradients, state, params, **extra)

    scalar = jax.ShapeDtypeStruct((), jnp.float32)
    first, state = jax.make_jaxpr(init, return_shape=True)(scalar, params)
    check_known(state, options)
    trace = jax.make_jaxpr(update, return_shape=True)
    extra = {"value": scalar}
    for _ in range(_ROUNDS):
        try:
            traced, (updates, after) = trace(gradients, state, params, scalar, extra)
        except TypeError as error:  # only a try tells whether an update takes the loss
            if "unexpected keyword argument 'value'" not in str(error):
                raise
            extra = {}
            traced, (updates, after) = trace(gradients, state, params, scalar, extra)
        _check_same(updates, params, "updates")
        _check_same(after, state, "state")
        if _dtypes(after) == _dtypes(state):
            break
        state = after
    of_value = [False] * (len(traced.in_avals) - len(extra)) + [True] * len(extra)
    return Probe(
        state=jax.tree.map(_shape, state),
        accepts_value=bool(extra),
        uses_value=any(depend_on(traced, of_value)),
        frozen=_frozen(first, traced, gradients, state, params),
        decays=decays,
    )


_ROUNDS = 3
"""Updates after which the dtypes of a state no longer change, as when an int becomes a float."""


def _frozen(
    first: ClosedJaxpr, traced: ClosedJaxpr, gradients: Any, state: Any, params: Any
) -> frozenset[str]:
    """Return the paths of the parameters whose update is zero in every step.

    Leaves of the state count as zero if they start and stay so, as the moments of zero gradients
    do; hyperparameters do not, since the host may set them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    zeros = known_zeros(first, [False] * len(first.in_avals))
    stays = [zero and not _is_set(path) for zero, (path, _) in zip(zeros, leaves, strict=True)]
    nb_gradients, nb_params = len(jax.tree.leaves(gradients)), len(jax.tree.leaves(params))
    nb_others = len(traced.in_avals) - nb_gradients - len(stays)
    while True:
        zeros = known_zeros(traced, [False] * nb_gradients + stays + [False] * nb_others)
        still = [old and new for old, new in zip(stays, zeros[nb_params:], strict=True)]
        if still == stays:
            break
        stays = still
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    return frozenset(
        jax.tree_util.keystr(path)
        for path, zero in zip(paths, zeros[:nb_params], strict=True)
        if zero
    )


def _is_set(path: tuple[Any, ...]) -> bool:
    return any(getattr(key, "name", None) == "hyperparams" for key in path)


def _check_same(returned: Any, expected: Any, what: str) -> None:
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (returned, expected)]
    if shapes[0] != shapes[1]:
        msg = (
            f"update returned {what} with a different structure or different shapes: found "
            f"{_shown(returned)}, expected {_shown(expected)}"
        )
        raise TypeError(msg)


def _shown(tree: Any) -> str:
    shown = str(jax.tree.map(lambda leaf: tuple(leaf.shape), tree))
    return shown if len(shown) < 200 else f"{shown[:200]}..."


def _dtypes(tree: Any) -> list[Any]:
    return [leaf.dtype for leaf in jax.tree.leaves(tree)]


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(jnp.shape(leaf), leaf.dtype)
