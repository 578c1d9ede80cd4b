"""TrainState: everything that a training step changes, as one pytree."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training import train_state
from jax.sharding import Mesh

from medjax import distributed, sharding
from medjax import optimizer as optimizers
from medjax.component import Init, TrainableComponent, Variables
from medjax.config import Options
from medjax.lent import lent
from medjax.metrics.mean import Mean


class Waiting(NamedTuple):
    """What an update is made of.

    Attributes
    ----------
    gradients : pytree
        Like the parameters.
    loss : jax.Array or None
        Sum of the losses that they are of, float32, shape (), where the optimizer depends on it.
    """

    gradients: Any
    loss: jax.Array | None

    @property
    def held(self) -> Any:
        """The same as it stands in a state: gradients alone, without a loss."""
        return self.gradients if self.loss is None else self


class TrainState(train_state.TrainState):
    """Flax's TrainState with what exact resumption needs.

    `step` counts updates, `batch_step` the batches trained on; with gradient accumulation the
    second is larger. Every random number is derived from `key` and `batch_step`.

    The static fields `apply_fn` and `tx` are stand-ins that do not own their functions (see
    `medjax.lent`). A state of `create_state` holds them beside, as does the one `train` returns;
    one that came out of a transformation of JAX needs the component, which keeps the optimizers of
    its states.

    Attributes
    ----------
    collections : dict
        Variables that are not trained, e.g. ``batch_stats``.
    key : jax.Array
        Root of the dropout keys, typed, shape ().
    learning_rate : jax.Array
        Rate set by the host between epochs, float32, shape ().
    batch_step : jax.Array
        Batches trained on, int32, shape ().
    gradients : pytree, Waiting or None
        Sum of the gradients waiting for an update, with that of their losses for an optimizer that
        depends on it; None without accumulation.
    gradient_weight : jax.Array
        What to divide `gradients` by, float32, shape ().
    pending : jax.Array
        Batches in `gradients`, int32, shape ().
    losses : Mean
        Training loss of the epoch so far.
    skipped : jax.Array
        Batches left out because they were not finite, int32, shape ().
    skipped_in_row : jax.Array
        The same since the last finite batch, int32, shape ().
    stopped_at : jax.Array
        `batch_step` + `skipped` of the batch that was one too many, or -1; the state does not
        change from there on. int32, shape ().
    """

    collections: dict[str, Any]
    key: jax.Array
    learning_rate: jax.Array
    batch_step: jax.Array
    gradients: Any
    gradient_weight: jax.Array
    pending: jax.Array
    losses: Mean
    skipped: jax.Array
    skipped_in_row: jax.Array
    stopped_at: jax.Array

    @property
    def variables(self) -> Variables:
        """All variable collections, as `TrainableComponent.forward` takes them."""
        return {"params": self.params, **self.collections}

    @property
    def held(self) -> tuple[Any, ...]:
        """What this state keeps alive beside its arrays."""
        return getattr(self, "_held", ())

    def holding(self, *functions: Any) -> TrainState:
        """Return this state, which now keeps alive `functions`, those its stand-ins stand for."""
        object.__setattr__(self, "_held", functions)  # no field: JAX does not see it
        return self


def _replace(state: TrainState, **updates: Any) -> TrainState:
    """Return a state with other values that holds what `state` holds."""
    return dataclasses.replace(state, **updates).holding(*state.held)


TrainState.replace = _replace  # type: ignore[assignment, method-assign]  # Flax sets its own


def make_optimizer(
    component: TrainableComponent, options: Options
) -> optax.GradientTransformationExtraArgs:
    """Return the component's optimizer with clipping and decay; see `medjax.optimizer`."""
    return optimizers.make_optimizer(component.configure_optimizer, options)


def create_state(
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool,
) -> TrainState:
    """Return the state a run starts from, on one device; see `create_state_on` for several.

    Parameters
    ----------
    component : TrainableComponent
        Its `init` makes the variables.
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    seed : int
        Seed of initialisation and dropout, below 2**63.
    learning_rate : float
        The first rate of the host.
    accumulates : bool
        Whether gradients are summed over several batches.

    Raises
    ------
    ValueError
        If `init` returns no parameters.
    """
    variables = jax.tree.map(jnp.array, dict(component.init(_init_key(seed))))
    key = dropout_key(seed)
    state = _state_of(variables, key, learning_rate, component, optimizer, accumulates)
    return _holding(state, component, optimizer)


def create_state_on(
    mesh: Mesh,
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool,
) -> TrainState:
    """Return the state of `create_state` laid out over a mesh.

    No device ever holds more than its part: what `init` computes from its key is computed in
    parts, what it reads from files is handed out in parts from the host's memory.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.
    component, optimizer, seed, learning_rate, accumulates
        As for `create_state`. An `init` that looks at the values of its key, which a traced
        function cannot, is run as it is, on one device.
    """
    key = _init_key(seed)
    made, given, tree = _made(component, key, mesh)
    # Each process has read them by itself; the array they make together must be one.
    distributed.check_agreement({"what component.init read": _digest(given)})
    for number, leaf in given.items():
        made[number] = sharding.put(leaf, sharding.state_shardings(leaf, mesh))
    variables = jax.tree.unflatten(tree, [made[number] for number in sorted(made)])

    def state_of(variables: Variables, key: jax.Array, learning_rate: jax.Array) -> TrainState:
        return _state_of(variables, key, learning_rate, component, optimizer, accumulates)

    def compiled() -> Any:
        layout = sharding.state_shardings(jax.eval_shape(state_of, *arguments), mesh)
        return jax.jit(state_of, out_shardings=layout, donate_argnums=0)

    arguments = (variables, dropout_key(seed), jnp.float32(learning_rate))
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(variables)]
    of = (optimizer, accumulates, mesh, tree, shapes)
    state: TrainState = component.kept("state", of, compiled)(*arguments)
    return _holding(state, component, optimizer)


class _Init:
    """Computes what `init` makes of its key in parts, on a mesh.

    Attributes
    ----------
    given : dict
        Leaves by number that `init` read and did not compute.
    gives : bool
        Whether there were such leaves, once it has run.
    tree : PyTreeDef
        Structure of the variables.
    """

    def __init__(self, init: Init, mesh: Mesh) -> None:
        self.given: dict[int, Any] = {}
        self.gives = False
        self.tree: Any = None
        self._init = init
        self._mesh = mesh
        self.compute = jax.jit(self._computed)

    def _computed(self, key: jax.Array) -> dict[int, jax.Array]:
        leaves, self.tree = jax.tree.flatten(dict(self._init(key)))
        computed = {}
        for number, leaf in enumerate(leaves):
            if isinstance(leaf, jax.core.Tracer):
                layout = sharding.state_shardings(leaf, self._mesh)
                computed[number] = jax.lax.with_sharding_constraint(leaf, layout)
            else:
                self.given[number] = leaf
        self.gives = bool(self.given)
        return computed


def _made(
    component: TrainableComponent, key: jax.Array, mesh: Mesh
) -> tuple[dict[int, jax.Array], dict[int, Any], Any]:
    """Return leaves of the variables that were computed, those that were read, and the tree."""
    init = component.kept("init", mesh, lambda: _Init(component.init, mesh))
    if init.gives:  # what it read may have changed since
        init = _Init(component.init, mesh)
    try:
        made = dict(init.compute(key))
    except jax.errors.JAXTypeError:
        leaves, tree = jax.tree.flatten(dict(component.init(key)))
        return {}, dict(enumerate(leaves)), tree
    given, init.given = init.given, {}  # a kept one holds no weights
    return made, given, init.tree


def abstract_state(
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool,
) -> TrainState:
    """Return shapes and types of `create_state`, without its arrays where `init` allows."""

    def state_of() -> TrainState:
        return create_state(
            component,
            optimizer,
            seed=seed,
            learning_rate=learning_rate,
            accumulates=accumulates,
        )

    try:
        return _holding(jax.eval_shape(state_of), component, optimizer)
    except jax.errors.JAXTypeError:  # see `create_state_on`
        return state_of()


def _state_of(
    variables: Variables,
    key: jax.Array,
    learning_rate: Any,
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    accumulates: bool,
) -> TrainState:
    params = variables.pop("params", None)
    if not jax.tree.leaves(params):
        msg = "component.init returned no parameters; expected {'params': {...}, ...}"
        raise ValueError(msg)
    return TrainState(
        step=_count(),
        apply_fn=lent(component.forward),
        params=params,
        tx=optax.GradientTransformationExtraArgs(lent(optimizer.init), lent(optimizer.update)),
        opt_state=_own(optimizer.init(params, learning_rate=learning_rate)),
        collections=variables,
        key=key,
        learning_rate=jnp.asarray(learning_rate, jnp.float32),
        batch_step=_count(),
        gradients=none_waiting(optimizer, params) if accumulates else None,
        gradient_weight=jnp.zeros((), jnp.float32),
        pending=_count(),
        losses=Mean.empty(),
        skipped=_count(),
        skipped_in_row=_count(),
        stopped_at=_count() - 1,
    )


def none_waiting(optimizer: optax.GradientTransformation, params: Any) -> Any:
    """Return the sums of gradients, and of the loss where it is used, before any batch."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    takes_loss = optimizers.uses_value(optimizer, params)
    return Waiting(zeros, jnp.zeros((), jnp.float32)) if takes_loss else zeros


def _own(tree: Any) -> Any:
    """Return a tree in buffers of its own, as the step takes over those of the whole state.

    An optimizer may keep the parameters it starts from, the learning rate, or what it was made
    with, as they are.
    """
    leaves, structure = jax.tree.flatten(tree)
    del tree  # so that no more than one leaf is there twice
    for number in range(len(leaves)):
        leaves[number] = jnp.copy(leaves[number])
    return jax.tree.unflatten(structure, leaves)


def _holding(
    state: TrainState, component: TrainableComponent, optimizer: optax.GradientTransformation
) -> TrainState:
    """Return `state` with its functions held, also for the states that will be made of it."""
    held: list[Any] = component.__dict__.setdefault("optimizers of states", [])
    if not any(one is optimizer for one in held):
        held.append(optimizer)
    return state.holding(component.forward, optimizer)


def _digest(leaves: dict[int, Any]) -> str:
    total = hashlib.sha256()
    for leaf in leaves.values() if jax.process_count() > 1 else ():
        values = np.asarray(leaf)
        total.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def _count() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def dropout_key(seed: int) -> jax.Array:
    """Return the root of the dropout keys of a run, typed, shape ()."""
    return jax.random.split(_root_key(seed))[1]


def _init_key(seed: int) -> jax.Array:
    return jax.random.split(_root_key(seed))[0]


def _root_key(seed: int) -> jax.Array:
    # jax.random.key takes 32 bits without x64; both halves of the seed must count.
    return jax.random.fold_in(jax.random.key(seed & 0xFFFFFFFF), seed >> 32)
