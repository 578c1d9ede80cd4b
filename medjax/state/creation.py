"""The states that runs start from: on one device, over a mesh, or shapes and types alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from medjax import distributed, sharding
from medjax import optimizer as optimizer_rules
from medjax.component import Init, TrainableComponent, Variables
from medjax.config import Options
from medjax.metrics.mean import Mean
from medjax.runtime.lent import lent
from medjax.state.train_state import TrainState, Waiting
from medjax.target import platform_of

__all__ = [
    "abstract_state",
    "create_state",
    "create_state_on",
    "dropout_key",
    "make_optimizer",
    "none_waiting",
]


def make_optimizer(
    component: TrainableComponent, options: Options | None = None
) -> optax.GradientTransformationExtraArgs:
    """Make the component's optimizer, with the clipping and the decay that options ask for.

    Parameters
    ----------
    component : TrainableComponent
        Its `configure_optimizer` is called when the optimizer is initialised and updated.
    options : Options, optional
        For `max_grad_norm` and `weight_decay`.
    """
    return optimizer_rules.make_optimizer(component.configure_optimizer, options or Options())


def create_state(
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool = False,
) -> TrainState:
    """Make the state a run starts from, on one device; see `create_state_on` for several.

    Parameters
    ----------
    component : TrainableComponent
        The component; its `init` makes the variables.
    optimizer : optax.GradientTransformation
        From `make_optimizer`.
    seed : int
        Seed of initialisation and dropout, below 2**63.
    learning_rate : float
        Rate of the first epoch.
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
    return _owning(state, component, optimizer)


def create_state_on(
    mesh: Mesh,
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool = False,
) -> TrainState:
    """Make the state of `create_state` laid out over a mesh.

    No device ever holds more than its part. For accelerators of a single process the state is
    computed on the host's CPU, where compiling is quick, and put on the devices in parts. Elsewhere
    what `init` computes from its key is computed in parts, and what it reads from files is
    distributed in parts.

    Parameters
    ----------
    mesh : jax.sharding.Mesh
        A mesh of `make_mesh`.
    component, optimizer, seed, learning_rate, accumulates
        As for `create_state`. An `init` that reads the values of its key, which a traced function
        cannot, runs untraced, on one device.
    """
    host = None if platform_of(mesh) == "cpu" else sharding.host_mesh()
    if host is not None and jax.process_count() == 1:
        # A GPU takes 45 s to compile the initial values of BERT-base, the host's CPU 4 s.
        with jax.default_device(host.devices.flat[0]):
            made = create_state_on(
                host,
                component,
                optimizer,
                seed=seed,
                learning_rate=learning_rate,
                accumulates=accumulates,
            )
        made = sharding.put(made, sharding.state_shardings(made, mesh))
        return _owning(made, component, optimizer)
    key = _init_key(seed)
    leaves, read, tree = _initial_leaves(component, key, mesh)
    # Each process has read its own copy, and together they make one array.
    distributed.check_agreement({"what component.init read": _digest(read)})
    for number, leaf in read.items():
        leaves[number] = sharding.put(leaf, sharding.state_shardings(leaf, mesh))
    variables = jax.tree.unflatten(tree, [leaves[number] for number in sorted(leaves)])

    def state_of(variables: Variables, key: jax.Array, learning_rate: jax.Array) -> TrainState:
        return _state_of(variables, key, learning_rate, component, optimizer, accumulates)

    def compiled() -> Callable[[Variables, jax.Array, jax.Array], TrainState]:
        layout = sharding.state_shardings(jax.eval_shape(state_of, *arguments), mesh)
        return jax.jit(state_of, out_shardings=layout, donate_argnums=0)

    arguments = (variables, dropout_key(seed), jnp.float32(learning_rate))
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(variables)]
    depends_on = (optimizer, accumulates, mesh, tree, shapes)
    state: TrainState = component.kept("state", depends_on, compiled)(*arguments)
    return _owning(state, component, optimizer)


Leaves = dict[int, ArrayLike]
"""Arrays by their number among the leaves of a tree."""


class _Init:
    """Computes what `init` makes of its key in parts, on a mesh.

    Attributes
    ----------
    read : dict
        Leaves by number that `init` read and did not compute, once it has run.
    tree : PyTreeDef
        Structure of the variables.
    """

    tree: jax.tree_util.PyTreeDef

    def __init__(self, init: Init, mesh: Mesh) -> None:
        self.read: Leaves = {}
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
                self.read[number] = leaf
        return computed


def _initial_leaves(
    component: TrainableComponent, key: jax.Array, mesh: Mesh
) -> tuple[Leaves, Leaves, jax.tree_util.PyTreeDef]:
    """Return the leaves of the variables that `init` computed, those it read, and the tree."""
    # Traced for each run, as files may have changed whose values became constants of the program.
    init = _Init(component.init, mesh)
    try:
        computed: Leaves = dict(init.compute(key))
    except jax.errors.JAXTypeError:
        leaves, tree = jax.tree.flatten(dict(component.init(key)))
        return {}, dict(enumerate(leaves)), tree
    read, init.read = init.read, {}  # `init` and its program refer to each other: it may stay
    return computed, read, init.tree


def abstract_state(
    component: TrainableComponent,
    optimizer: optax.GradientTransformation,
    *,
    seed: int,
    learning_rate: float,
    accumulates: bool,
) -> TrainState:
    """Compute shapes and types of `create_state`, without its arrays where `init` allows."""

    def state_of() -> TrainState:
        return create_state(
            component,
            optimizer,
            seed=seed,
            learning_rate=learning_rate,
            accumulates=accumulates,
        )

    try:
        return _owning(jax.eval_shape(state_of), component, optimizer)
    except jax.errors.JAXTypeError:  # see `create_state_on`
        return state_of()


def _state_of(
    variables: Variables,
    key: jax.Array,
    learning_rate: ArrayLike,
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


def none_waiting(
    optimizer: optax.GradientTransformation, params: optax.Params
) -> Waiting | optax.Updates:
    """Make the sums of gradients, and of the loss where it is used, before any batch.

    They are float32 for parameters in bfloat16 or float16, whose sums would stop growing.
    """
    zeros = jax.tree.map(
        lambda each: jnp.zeros_like(each, jnp.promote_types(each.dtype, jnp.float32)), params
    )
    takes_loss = optimizer_rules.uses_value(optimizer, params)
    return Waiting(zeros, jnp.zeros((), jnp.float32)) if takes_loss else zeros


def _own(tree: optax.OptState) -> optax.OptState:
    """Copy a tree into buffers of its own, as the step takes over those of the entire state.

    An optimizer may keep the parameters it starts from, the learning rate, or its own arguments,
    uncopied.
    """
    leaves, structure = jax.tree.flatten(tree)
    del tree  # so that at most one leaf exists twice
    for number in range(len(leaves)):
        leaves[number] = jnp.copy(leaves[number])
    return jax.tree.unflatten(structure, leaves)


def _owning(
    state: TrainState, component: TrainableComponent, optimizer: optax.GradientTransformation
) -> TrainState:
    """Keep the functions of `state` alive, also for the states that will be made from it."""
    optimizers: list[object] = component.__dict__.setdefault("optimizers of states", [])
    if not any(one is optimizer for one in optimizers):
        optimizers.append(optimizer)
    return state.owning(component.forward, optimizer)


def _digest(leaves: Leaves) -> str:
    total = hashlib.sha256()
    for leaf in leaves.values() if jax.process_count() > 1 else ():
        values = np.asarray(leaf)
        total.update(f"{values.dtype} {values.shape}".encode() + values.tobytes())
    return total.hexdigest()


def _count() -> jax.Array:
    return jnp.zeros((), jnp.int32)


def dropout_key(seed: int) -> jax.Array:
    """Derive the root of the dropout keys of a run, typed, shape ()."""
    return jax.random.split(_root_key(seed))[1]


def _init_key(seed: int) -> jax.Array:
    return jax.random.split(_root_key(seed))[0]


def _root_key(seed: int) -> jax.Array:
    # jax.random.key takes 32 bits without x64; both halves of the seed must count.
    return jax.random.fold_in(jax.random.key(seed & 0xFFFFFFFF), seed >> 32)
