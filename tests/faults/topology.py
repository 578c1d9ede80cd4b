"""Saves on some of eight forced CPU devices and restores on others; run by test_topology."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import job
import numpy as np
import pytest
from breaking import At, DiedError, die

import medjax
from medjax import sharding
from medjax.state import create_state, make_optimizer


def state_of(mesh, seed: int):
    parts = job.component(width=128)
    optimizer = make_optimizer(parts, medjax.Options())
    state = create_state(parts, optimizer, seed=seed, learning_rate=0.1, accumulates=True)
    random = np.random.RandomState(seed)

    def fill(leaf):
        if leaf.dtype == np.float32:
            return random.standard_normal(leaf.shape).astype(np.float32)
        return leaf

    return sharding.put(jax.tree.map(fill, state), sharding.state_shardings(state, mesh))


def main(folder: Path) -> None:
    devices = jax.devices()
    assert len(devices) == 8
    meshes = {
        "fsdp 8": sharding.make_mesh(8),
        "fsdp 4 of 8": sharding.make_mesh(4),
        "1 device": sharding.make_mesh(1, devices[:1]),
    }
    for source, target in [
        ("fsdp 8", "1 device"),
        ("1 device", "fsdp 8"),
        ("fsdp 8", "fsdp 4 of 8"),
    ]:
        saved = state_of(meshes[source], 1)
        out = folder / f"{source} to {target}"
        with medjax.CheckpointStore(out, "run") as store:
            store.save(
                store.new_path(1),
                saved,
                {},
                metric=None,
                config={},
                write_files=lambda folder: None,
            )
        like = state_of(meshes[target], 2)
        layout = sharding.state_shardings(like, meshes[target])
        with medjax.CheckpointStore(out, "run") as store:
            restored, _ = store.restore("auto", like, layout)
        assert job.digest(restored) == job.digest(saved) != job.digest(like), (source, target)
        for leaf, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(layout), strict=True):
            assert leaf.sharding.is_equivalent_to(wanted, leaf.ndim), (source, target)
        sizes = sharding.bytes_per_device(restored.params)
        if target.startswith("fsdp 8"):
            assert max(sizes.values()) < sum(
                leaf.nbytes for leaf in jax.tree.leaves(restored.params)
            )

    # A run that changes its devices within an epoch: equal but for the order of sums.
    one_epoch = {"parts": job.component(width=128), "nb_training_epochs": 1}
    wanted = job.run(folder / "wanted", mesh=meshes["1 device"], **one_epoch)
    with pytest.raises(DiedError):
        job.run(
            folder / "moved",
            mesh=meshes["fsdp 8"],
            options=job.EVERY_3,
            callback=At(1, 7, "train", die),
            **one_epoch,
        )
    moved = job.run(folder / "moved", mesh=meshes["1 device"], resume="auto", **one_epoch)
    for moved_row, row in zip(moved.history, wanted.history, strict=True):
        for phase in ("train", "eval"):
            np.testing.assert_allclose(moved_row[phase]["loss"], row[phase]["loss"], rtol=1e-4)
    print("equal")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
