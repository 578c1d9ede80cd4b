"""Measure what a checkpoint costs: how long training waits for it, its commit, and its restore.

A state of float32 arrays is saved to one folder and restored from it several times. The table has
the median, the minimum and the maximum of

- blocking: until `CheckpointStore.save` returns, after which the next step may reuse the buffers;
- commit: from the call of `save` until the checkpoint is hashed and on disk under its final name;
- restore: finding, verifying (SHA-256) and reading the newest checkpoint.

    python benchmarks/checkpoints.py
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

import medjax


def make_state(megabytes: float, nb_arrays: int) -> dict[str, jax.Array]:
    """Return random arrays, which do not compress."""
    rng = np.random.default_rng(0)
    size = int(megabytes * 1e6 / 4 / nb_arrays)
    return {
        f"w{number:02d}": jax.device_put(rng.standard_normal(size, np.float32))
        for number in range(nb_arrays)
    }


def save_once(store: medjax.CheckpointStore, state: Any, number: int) -> tuple[float, float]:
    """Return the seconds until `save` returned and until the checkpoint was committed."""
    path = store.new_path(number)
    began = time.perf_counter()
    store.save(path, state, {"at": number}, metric=None, config={}, write_files=lambda folder: None)
    returned = time.perf_counter()
    store.wait()
    return returned - began, time.perf_counter() - began


def restore_once(store: medjax.CheckpointStore, state: Any) -> float:
    """Return the seconds of a restore."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, state)
    began = time.perf_counter()
    restored = store.restore("auto", state, layout)
    jax.block_until_ready(restored)
    return time.perf_counter() - began


def show(name: str, seconds: list[float]) -> None:
    """Print a row of the table."""
    median, minimum, maximum = statistics.median(seconds), min(seconds), max(seconds)
    print(f"{name:10s} {1e3 * median:8.1f} {1e3 * minimum:8.1f} {1e3 * maximum:8.1f}")


def main() -> None:
    """Save and restore, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=100.0)
    parser.add_argument("--arrays", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--folder",
        type=Path,
        help="parent of the folder to write to; by default that of temporary files",
    )
    args = parser.parse_args()
    state = make_state(args.megabytes, args.arrays)
    with (
        tempfile.TemporaryDirectory(dir=args.folder) as folder,
        medjax.CheckpointStore(folder, "benchmark") as store,
    ):
        save_once(store, state, 0)  # the first save starts threads and event loops
        times = [save_once(store, state, number + 1) for number in range(args.repeats)]
        restores = [restore_once(store, state) for _ in range(args.repeats)]
        assert store.last is not None
        files = (path for path in store.last.rglob("*") if path.is_file())
        on_disk = sum(path.stat().st_size for path in files)
    print(
        f"jax {jax.__version__}, {jax.devices()[0].platform}; {args.megabytes:g} MB in "
        f"{args.arrays} arrays, {on_disk / 1e6:.0f} MB on disk, {args.repeats} times"
    )
    print(f"{'ms':10s} {'median':>8s} {'minimum':>8s} {'maximum':>8s}")
    show("blocking", [blocking for blocking, _ in times])
    show("commit", [commit for _, commit in times])
    show("restore", restores)


if __name__ == "__main__":
    main()
