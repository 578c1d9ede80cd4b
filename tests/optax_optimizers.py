"""All optimizers of optax that take a learning rate, and a plain loop for comparison."""

import inspect
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import contrib
from tiny import collate_points, mlp, points

import medjax
from medjax import by_step, make_train_step, sharding
from medjax.data.ladder import Ladder, fix_shape
from medjax.schedules import as_schedule
from medjax.state import create_state, create_state_on, make_optimizer

NEEDS = {
    "dpsgd": {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0},
    "noisy_sgd": {"key": jax.random.key(0)},
    "galore": {"rank": 2},
    "dog": {"init_step": ("heuristic", 0.01)},
    "dadapt_adamw": {"estim_lr0": 0.1},
    "prodigy": {"estim_lr0": 0.1},
}
"""Arguments without a default, or with one that would not move a tiny model in a few steps."""

NOT_BY_THEMSELVES = {
    "scale_by_learning_rate": "one factor of an optimizer",
    "scale_by_rprop": "a part of rprop",
    "scale_by_madgrad": "a part of madgrad",
    "schedule_free": "wraps an optimizer; in WRAPPED",
    "lbfgs": "its default is refused, in REFUSED; without a line search it is in WRAPPED",
}
"""Functions with a parameter `learning_rate` that are not optimizers, and why."""

REFUSED = {
    "dpsgd": r"differentially_private_aggregate.*needs the gradient of every row",
    "sophia": r"hutchinson_estimator_diag_hessian.*evaluates the loss of a batch a second time",
    "lbfgs": r"scale_by_zoom_linesearch.*linesearch=None",
}
"""What is refused, by name."""


def optimizers_with_rate():
    """Return all functions of optax that take a learning rate, by name."""
    functions = {}
    for module in (optax, contrib):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if (
                not name.startswith("_")
                and "learning_rate" in inspect.signature(function).parameters
            ):
                functions[name] = function
    return functions


def made(name, function):
    def configure(rate):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # deprecated ones run as well
            return function(learning_rate=rate, **NEEDS.get(name, {}))

    return configure


def labels(params):
    return {name: "none" if name.startswith("b") else "all" for name in params}


def adam_sam(rate):
    adversary = optax.chain(contrib.normalize(), optax.sgd(0.05))
    return contrib.sam(optax.adam(rate), adversary)


WRAPPED = {
    "inject_hyperparams": lambda rate: optax.inject_hyperparams(optax.adamw)(learning_rate=rate),
    "inject_hyperparams of a schedule": lambda rate: optax.inject_hyperparams(optax.adam)(
        learning_rate=optax.cosine_decay_schedule(0.1, 10), b1=lambda step: 0.9 - 0.01 * step
    ),
    "inject_hyperparams inside a chain": lambda rate: optax.chain(
        optax.clip(0.5), optax.inject_hyperparams(optax.sgd)(rate, momentum=0.9)
    ),
    "inject_hyperparams twice": lambda rate: optax.inject_hyperparams(
        lambda learning_rate: optax.chain(
            optax.inject_hyperparams(optax.scale_by_adam)(b1=0.8),
            optax.inject_hyperparams(optax.scale)(step_size=-2 * learning_rate),
        )
    )(learning_rate=rate),
    "a schedule of its own": lambda rate: optax.adam(optax.linear_schedule(rate, 0.0, 10)),
    "a warm-up of its own": lambda rate: optax.chain(
        optax.scale_by_adam(), optax.scale_by_schedule(lambda n: -rate * jnp.minimum(n / 3, 1))
    ),
    "partition": lambda rate: optax.partition(
        {"all": optax.adam(rate), "none": optax.set_to_zero()}, labels
    ),
    "masked": lambda rate: optax.chain(
        optax.adam(rate),
        optax.masked(optax.set_to_zero(), {"w1": True, "b1": True, "w2": False, "b2": False}),
    ),
    "selective_transform": lambda rate: optax.selective_transform(
        optax.sgd(rate), freeze_mask={"w1": True, "b1": True, "w2": False, "b2": False}
    ),
    "MultiSteps": lambda rate: optax.MultiSteps(optax.adam(rate), 2),
    "MultiSteps as a transformation": lambda rate: optax.MultiSteps(
        optax.adam(rate), 3
    ).gradient_transformation(),
    "apply_if_finite": lambda rate: optax.apply_if_finite(optax.adam(rate), 3),
    "mechanize": lambda rate: contrib.mechanize(optax.adamw(rate), s_init=0.1),
    "schedule_free": lambda rate: contrib.schedule_free(optax.sgd(rate), rate),
    "reduce_on_plateau": lambda rate: optax.chain(
        optax.adam(rate), contrib.reduce_on_plateau(patience=1, factor=0.5, accumulation_size=1)
    ),
    "polyak_sgd": lambda rate: optax.polyak_sgd(max_learning_rate=rate),
    "sam": adam_sam,
    "lbfgs without a line search": lambda rate: optax.lbfgs(rate, memory_size=2, linesearch=None),
    "split_real_and_imaginary": lambda rate: contrib.split_real_and_imaginary(optax.adam(rate)),
    "adaptive_grad_clip": lambda rate: optax.chain(optax.adaptive_grad_clip(0.1), optax.adam(rate)),
    "bfloat16 moments": lambda rate: optax.adamw(rate, mu_dtype=jnp.bfloat16),
    "ema": lambda rate: optax.chain(optax.sgd(rate), optax.ema(0.5)),
    "apply_every": lambda rate: optax.chain(optax.apply_every(2), optax.sgd(rate)),
}
"""Optimizers around others, and with schedules and parts of their own."""


def everything():
    """Return all optimizers that a step runs, by name, each made by a function of the rate."""
    alone = {
        name: made(name, function)
        for name, function in optimizers_with_rate().items()
        if name not in REFUSED and name not in NOT_BY_THEMSELVES
    }
    return {**alone, **WRAPPED}


CONSTANT = {
    "optimistic_adam": "takes no schedule",
    "rprop": "takes no schedule",
    "sm3": "takes no schedule",
    "inject_hyperparams twice": "does arithmetic with the rate",
    "a schedule of its own": "makes a schedule of the rate",
    "a warm-up of its own": "does arithmetic with the rate",
    "polyak_sgd": "takes a number for the largest rate",
    "MultiSteps": "asks a schedule for each update and not for each batch",
    "MultiSteps as a transformation": "asks a schedule for each update and not for each batch",
    "sam": "asks a schedule for each update and not for each batch",
    "schedule_free": "counts updates from 1",
    "schedule_free_sgd": "counts updates from 1",
    "schedule_free_adamw": "counts updates from 1",
}
"""Optimizers that are compared at one rate only, as optax itself cannot take its schedule there."""

RATE, STEPS = 0.1, 4
falling = optax.linear_schedule(RATE, 0.0, STEPS)


def loss_of(component, params, batch):
    flags = {"return_loss": True, "eval_mode": True}
    return component.forward({"params": params}, batch, None, **flags)[1].compute()


def plain_loop(component, configure, rate, batches):
    """Return the parameters after a loop as optax's documentation writes it."""
    optimizer = configure(rate)
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    optimizer = optax.with_extra_args_support(optimizer)
    params = component.init(jax.random.split(jax.random.fold_in(jax.random.key(7), 0))[0])["params"]
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        value, gradients = jax.value_and_grad(loss_of, argnums=1)(component, params, batch)
        try:
            updates, state = optimizer.update(gradients, state, params, value=value)
        except TypeError:  # one that takes no further arguments
            updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    with jax.default_matmul_precision("highest"):
        for batch in batches:
            params, state = step(params, state, batch)
    return jax.device_get(params)


def trained(component, batches, mesh, *, options=None, schedule=None, accumulation=1):
    """Return the parameters after the same steps of medjax on a mesh."""
    options = options or medjax.Options()
    parts = {
        "component": component,
        "optimizer": make_optimizer(component, options),
        "seed": 7,
        "learning_rate": RATE,
        "accumulates": accumulation > 1,
    }
    if mesh.size == 1:
        state = create_state(**parts)
        state = sharding.put(state, sharding.state_shardings(state, mesh))
    else:
        state = create_state_on(mesh, **parts)
    step = make_train_step(
        state,
        schedule=as_schedule(schedule),
        options=options,
        accumulation=accumulation,
        mesh=mesh,
    )
    for batch in batches:
        state, _ = step(state, sharding.put_batch(batch, mesh))
    assert step.nb_compilations == 1
    return jax.device_get(state.params)


def deviation(name, mesh):
    """Return the largest difference between the two and the largest change of a parameter."""
    configure = everything()[name]
    component = mlp(optimizer=configure)
    items = points(8 * STEPS, weighted=True)
    groups = [items[n : n + 8] for n in range(0, len(items), 8)]
    batches = [fix_shape(collate_points(group), Ladder((16,), {}), 8) for group in groups]
    rate = RATE if name in CONSTANT else falling
    wanted = plain_loop(component, configure, rate, batches)
    schedule = None if name in CONSTANT else by_step(falling)
    parameters = trained(component, batches, mesh, schedule=schedule)
    start = component.init(jax.random.split(jax.random.fold_in(jax.random.key(7), 0))[0])["params"]
    largest = [
        max(float(np.max(np.abs(a - b))) for a, b in zip(*map(jax.tree.leaves, pair), strict=True))
        for pair in ((parameters, wanted), (parameters, jax.device_get(start)))
    ]
    return largest[0], largest[1]
