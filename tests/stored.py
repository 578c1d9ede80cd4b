"""States in a checkpoint store, what is restored from them, and processes that save them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import medjax
from medjax import CheckpointStore
from medjax.checkpoint.lock import LOCK

CONFIG = {"learning_rate": 1e-5, "checkpoint_metric": "é"}


def tree(value: float = 1.0) -> dict:
    return {
        "params": {"w": jnp.full((3, 4), value), "half": jnp.full(5, value, jnp.bfloat16)},
        "key": jax.random.key(int(value)),
        "odd": jnp.array([np.nan, -0.0, np.inf, 1e-40], jnp.float32),
        "count": jnp.asarray(int(value), jnp.int32),
    }


def layout(state):
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda _: here, state)


def put(store: CheckpointStore, value: float, metric: float | None = None, **more) -> Path:
    path = store.new_path(more.pop("epoch", int(value)))
    arguments = {
        "metric": metric,
        "config": CONFIG,
        "write_files": lambda folder: (folder / "own.txt").write_text(str(value)),
        "block": True,
    }
    store.save(path, more.pop("state", tree(value)), {"at": value}, **{**arguments, **more})
    return path


def restored(folder: Path, resume: str | Path = "auto", state: dict | None = None):
    """Return progress and arrays, or None if there is no checkpoint."""
    like = tree() if state is None else state
    with CheckpointStore(folder, "reader") as store:
        checkpoint = store.restore(resume, like, layout(like))
    if checkpoint is None:
        return None
    return checkpoint[1]["at"], checkpoint[0]


def same(a, b) -> bool:
    def raw(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        return np.asarray(leaf).tobytes()

    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        raw(x) == raw(y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def names(folder: Path) -> list[str]:
    """Return the names in a folder; the lock exists as long as a store is open."""
    return sorted(path.name for path in folder.iterdir() if path.name != LOCK)


def run_script(script: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own, on the CPU."""
    environment = os.environ | {
        "PYTHONPATH": str(Path(medjax.__file__).parents[1]),
        "JAX_PLATFORMS": "cpu",
    }
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
