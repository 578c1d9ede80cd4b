"""The memory of a step on the CPU is that of the step before, also where the update is separate."""

import os
import subprocess
import sys
from pathlib import Path

from pages import needs_glibc

TESTS = Path(__file__).resolve().parents[1]

SCRIPT = """
import resource
import jax, jax.numpy as jnp, numpy as np, optax
import medjax
from medjax import BatchData, ROW_MASK

medjax.make_mesh()  # before anything asks JAX for a device
from tiny import mlp, one_device, start_state

WIDTH, ROWS = 2**18, 128  # activations of 128 MB
def init(key):
    shapes = {"w1": (16, WIDTH), "b1": (WIDTH,), "w2": (WIDTH, 3), "b2": (3,)}
    return {"params": {name: np.full(shape, 0.01, "f4") for name, shape in shapes.items()}}

component = mlp(optimizer=optax.adamw)._replace(init=init)
state = start_state(component)
step = medjax.make_train_step(state, mesh=one_device(), separate_update=True)
batch = BatchData({
    "x": np.ones((ROWS, 16), "f4"), "labels": np.zeros(ROWS, "i4"),
    "weights": np.ones(ROWS, "f4"), ROW_MASK: np.ones(ROWS, "f4"),
})
counts = [0]
with medjax.keep_memory():
    for _ in range(15):
        for _ in range(2):  # the second begins without waiting for the first
            state, stats = step(state, batch)
        jax.block_until_ready(state)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
# Fragments of the heap now and then cost one step a new block: most steps tell.
print(int(np.median(np.diff(counts)[3:])) // 2)
"""


@needs_glibc
def test_steps_reuse_their_memory():
    ours = ("MALLOC_", "GLIBC_TUNABLES", "JAX_CPU_ENABLE_ASYNC_DISPATCH")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PYTHONPATH"] = os.pathsep.join([str(TESTS), *sys.path])
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 4000, "pages that are cleared for each step"
