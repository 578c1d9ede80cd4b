"""Measure what `medjax.train` adds to a bare loop of the same jitted step, per step.

A tiny MLP on batches of 32. There are two comparisons, with alternating runs in one process; the
results are medians:

- loop: both sides get batches that are on the device already, which leaves callbacks, the monitor,
  signals and control flow;
- whole: the bare loop shuffles, collates and puts each batch itself; `medjax.train` also
  preprocesses, checks dtypes, pads and prefetches. It also writes a checkpoint during each
  epoch: a tenth of a second, which matters more the fewer `--steps` an epoch has.

    python benchmarks/overhead.py
"""

from __future__ import annotations

import argparse
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import medjax


class MLP(nn.Module):
    """Two layers."""

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Return logits of three classes, shape (rows, 3)."""
        return nn.Dense(3)(nn.relu(nn.Dense(32)(inputs)))


def forward(
    variables: Any, batch: medjax.BatchData, key: jax.Array, *, return_loss: bool, eval_mode: bool
) -> Any:
    del key, return_loss, eval_mode
    logits = MLP().apply(variables, batch["x"])
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    return medjax.BatchData(logits=logits), medjax.Mean.of(losses, batch["row_mask"]), {}


def collate(examples: Any) -> medjax.BatchData:
    return medjax.BatchData(
        x=np.stack([example["x"] for example in examples]),
        y=np.array([example["y"] for example in examples], np.int32),
    )


COMPONENT = medjax.TrainableComponent(
    init=lambda key: MLP().init(key, jnp.zeros((1, 8))),
    preprocess=lambda item: item,
    collate=collate,
    forward=forward,
    configure_optimizer=optax.adam,
    save=lambda path, variables: None,
    load=lambda path: {},
)


def bare_state(mesh: Any) -> tuple[Any, Any]:
    """Return a state and the step that `medjax.train` would use."""
    options = medjax.Options()
    optimizer = medjax.make_optimizer(COMPONENT, options)
    state = medjax.create_state_on(mesh, COMPONENT, optimizer, seed=0, learning_rate=1e-3)
    return state, medjax.make_train_step(state, options=options, mesh=mesh)


class ReadyLoader:
    """Stands in for a DataLoader whose batches are on the device already."""

    def __init__(self, batches: list[medjax.Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def batches(self, epoch: int, start: int = 0) -> Iterator[medjax.Batch]:
        """Yield the batches from number `start` on."""
        yield from self._batches[start:]


def seconds_per_step(run: Callable[[], None], nb_steps: int) -> float:
    began = time.perf_counter()
    run()
    return (time.perf_counter() - began) / nb_steps


class Durations(medjax.TrainerCallback):
    """Records how long each epoch took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_epoch_end(self, metrics: Any, epoch: int, epoch_duration: float) -> None:
        self.seconds.append(epoch_duration)


def compare_loops(nb_steps: int, repeats: int) -> tuple[list[float], list[float]]:
    """Return seconds per step of the bare loop and of `training_epoch`, on prepared batches."""
    mesh = medjax.make_mesh()
    state, step = bare_state(mesh)
    device = medjax.sharding.put_batch(complete_batch(DATA[:32]), mesh)
    loader = ReadyLoader([medjax.Batch(device, medjax.BatchData(), np.arange(32))] * nb_steps)

    def bare() -> None:
        nonlocal state
        for batch in loader.batches(1):
            state, _ = step(state, batch.device)
        jax.block_until_ready(state)

    def ours() -> None:
        nonlocal state
        state, _ = medjax.training_epoch(state, loader, step, medjax.Span(epoch=1))

    bare(), ours()
    pairs = [
        (seconds_per_step(bare, nb_steps), seconds_per_step(ours, nb_steps)) for _ in range(repeats)
    ]
    return [bare for bare, _ in pairs], [ours for _, ours in pairs]


def compare_runs(nb_steps: int, repeats: int) -> tuple[list[float], list[float]]:
    """Return seconds per step of a bare loop that makes its batches, and of `medjax.train`."""
    mesh = medjax.make_mesh()
    state, step = bare_state(mesh)
    data = DATA[: 32 * nb_steps]

    def bare() -> None:
        nonlocal state
        order = medjax.epoch_order(0, 1, len(data))
        for first in range(0, len(data), 32):
            batch = complete_batch([data[index] for index in order[first : first + 32]])
            state, _ = step(state, medjax.sharding.put_batch(batch, mesh))
        jax.block_until_ready(state)

    def ours() -> float:
        durations = Durations()
        with tempfile.TemporaryDirectory() as folder:
            config = medjax.TrainerConfig(folder, 1e-3, 4, batch_size=32, seed=0)
            medjax.train(COMPONENT, config, data, callback=durations)
        return statistics.median(durations.seconds[1:]) / nb_steps  # the first epoch compiles

    bare()
    pairs = [(seconds_per_step(bare, nb_steps), ours()) for _ in range(repeats)]
    return [bare for bare, _ in pairs], [ours for _, ours in pairs]


def complete_batch(items: Any) -> medjax.BatchData:
    """Return a batch as the step takes it; every row of it is an item."""
    return medjax.BatchData(collate(items), row_mask=np.ones(len(items), np.float32))


def show(name: str, bare: list[float], ours: list[float]) -> None:
    differences = [1e6 * (b - a) for a, b in zip(bare, ours, strict=True)]
    print(
        f"{name:6s} bare {1e6 * statistics.median(bare):7.1f}  "
        f"medjax {1e6 * statistics.median(ours):7.1f}  "
        f"added {statistics.median(differences):7.1f} "
        f"({min(differences):.1f} to {max(differences):.1f}) microseconds per step"
    )


RNG = np.random.default_rng(0)
DATA: list[dict[str, Any]] = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    inputs = RNG.normal(size=(32 * args.steps, 8)).astype(np.float32)
    classes = RNG.integers(0, 3, 32 * args.steps)
    DATA.extend({"x": x, "y": int(y)} for x, y in zip(inputs, classes, strict=True))
    print(f"jax {jax.__version__}, {jax.devices()[0].platform}, {platform.processor() or 'CPU'}")
    show("loop", *compare_loops(args.steps, args.repeats))
    show("whole", *compare_runs(args.steps, args.repeats))


if __name__ == "__main__":
    main()
