"""Creates states on eight forced CPU devices; prints the bytes on each, as JSON.

Run by test_sharding.py in a process of its own, since the number of devices is fixed at start.
"""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tiny import mlp

from medjax import Options, sharding
from medjax.state import abstract_state, create_state, create_state_on, make_optimizer

LARGE = {"embedding": (1000, 64), "kernel": (64, 256), "odd": (127, 63), "bias": (256,)}
TRACED = []


def from_key(key):
    TRACED.append(isinstance(key, jax.core.Tracer))
    keys = jax.random.split(key, len(LARGE))
    sizes = zip(keys, LARGE.items(), strict=True)
    return {"params": {name: jax.random.normal(each, shape) for each, (name, shape) in sizes}}


def from_files(key):
    random = np.random.RandomState(0)
    read = {name: random.normal(size=shape).astype(np.float32) for name, shape in LARGE.items()}
    read["head"] = jax.random.normal(key, (64, 64))
    return {"params": read, "running": {"mean": np.zeros(64, np.float32)}}


def from_values(key):
    random = np.random.RandomState(int(np.asarray(jax.random.key_data(key))[0] % 1000))
    return {"params": {"kernel": jnp.asarray(random.normal(size=(64, 256)))}}


def created(init, fsdp):
    component = mlp(optimizer=optax.adam)._replace(init=init)
    mesh = sharding.make_mesh(fsdp)
    parts = {
        "component": component,
        "optimizer": make_optimizer(component, Options()),
        "seed": 3,
        "learning_rate": 0.1,
        "accumulates": True,
    }
    state, wanted = create_state_on(mesh, **parts), create_state(**parts)
    layout = sharding.state_shardings(wanted, mesh)
    for leaf, sharded in zip(*map(jax.tree.leaves, (state, layout)), strict=True):
        assert leaf.sharding.is_equivalent_to(sharded, leaf.ndim), (leaf.shape, leaf.sharding)
    for leaf, other in zip(*map(jax.tree.leaves, (state, wanted)), strict=True):
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(leaf, other, rtol=1e-6)
    abstract = abstract_state(**parts)
    assert jax.tree.structure(abstract) == jax.tree.structure(state)
    shapes = [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(abstract)]
    assert shapes == [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]
    split = replicated = 0
    for leaf, sharded in zip(*map(jax.tree.leaves, (state, layout)), strict=True):
        if sharded.is_fully_replicated:
            replicated += leaf.nbytes
        else:
            split += leaf.nbytes
    bytes_by_device = sharding.bytes_per_device(state)
    return {"devices": sorted(bytes_by_device.values()), "split": split, "replicated": replicated}


def created_again(folder):
    """Return what two states start from whose `init` computes with a file that has changed."""
    file = Path(folder, "kernel.npy")

    def init(key):
        return {"params": {"kernel": 2.0 * jnp.asarray(np.load(file))}}

    component = mlp()._replace(init=init)
    optimizer = make_optimizer(component, Options())
    starts = []
    for value in (1.0, 3.0):
        np.save(file, np.full((8, 8), value, np.float32))
        state = create_state_on(
            sharding.make_mesh(8), component, optimizer, seed=3, learning_rate=0.1
        )
        starts.append(float(state.params["kernel"][0, 0]))
    return starts


if __name__ == "__main__":
    results = {init.__name__: created(init, 8) for init in (from_key, from_files, from_values)}
    results["both axes"] = created(from_key, 4)
    results["traced"] = TRACED
    results["again"] = created_again(sys.argv[1])
    json.dump(results, sys.stdout)
