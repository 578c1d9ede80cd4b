"""How cost grows: with rows and tokens of a batch, layers of the model, and items of the data.

The first three are seconds of one training step of a random encoder as wide as MiniLM; the last
is what `medjax.train` takes a step on a tiny MLP, and how much memory the process holds at most.

    python benchmarks/growth.py
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import optax
import overhead

import medjax
from medjax.models import EncoderConfig, TokenClassifier
from medjax.schedules import as_schedule
from medjax.state import create_state, make_optimizer

ROWS, LENGTH, LAYERS = 16, 64, 6
NB_TAGS = 3


def main() -> None:
    """Measure all four and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 8, 16, 32, 64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6, 12])
    parser.add_argument("--items", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # items, in this process
    args = parser.parse_args()
    if args.one:
        print(json.dumps(_items(args.one)))
        return
    print("| items | microseconds a step | peak MB |\n|---|---|---|")
    for items in args.items:
        # A process each, as the peak of memory is that of a process; and first, as Linux counts
        # what the parent held when it started the process.
        command = [sys.executable, __file__, "--one", str(items)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        print(f"| {items} | {found['step_us']:.0f} | {found['peak_mb']:.0f} |", flush=True)
    for name, values in (("rows", args.rows), ("lengths", args.lengths), ("layers", args.layers)):
        _show(name, values, args.precision)


def _show(name: str, values: Sequence[int], precision: str) -> None:
    print(f"\n| {name} | step, ms | tokens/s | compilation, s |\n|---|---|---|---|")
    for value in values:
        sizes = {"rows": ROWS, "lengths": LENGTH, "layers": LAYERS} | {name: value}
        seconds, compiling = _step(sizes["rows"], sizes["lengths"], sizes["layers"], precision)
        rate = sizes["rows"] * sizes["lengths"] / seconds
        print(f"| {value} | {1e3 * seconds:.0f} | {rate:.0f} | {compiling:.1f} |", flush=True)


def _step(rows: int, length: int, layers: int, precision: str) -> tuple[float, float]:
    """Return seconds of a training step, and of the first, which compiles."""
    config = EncoderConfig(
        model_type="bert",
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
        type_vocab_size=2,
    )
    model = TokenClassifier(config, NB_TAGS)
    rng = np.random.default_rng(0)
    ids = rng.integers(0, config.vocab_size, (rows, length), dtype=np.int32)
    labels = rng.integers(0, NB_TAGS, (rows, length), dtype=np.int32)
    batch = medjax.BatchData(
        input_ids=ids, attention_mask=np.ones_like(ids), labels=labels, row_mask=np.ones(rows, "f4")
    )

    def forward(variables: Any, batch: Any, key: Any, /, *, return_loss: bool, eval_mode: bool):  # type: ignore[no-untyped-def]
        logits = model.apply(
            variables,
            batch["input_ids"],
            batch["attention_mask"],
            deterministic=eval_mode,
            rngs={"dropout": key},
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
        return medjax.BatchData(logits=logits), medjax.Mean.of(losses), {}

    component = overhead.COMPONENT._replace(
        init=lambda key: model.init(key, ids[:1], ids[:1], deterministic=True),
        forward=forward,
        configure_optimizer=optax.adamw,
    )
    options, mesh = medjax.Options(precision=precision), medjax.sharding.make_mesh()
    optimizer = make_optimizer(component, options)
    state = create_state(component, optimizer, seed=0, learning_rate=1e-4, accumulates=False)
    state = medjax.sharding.put(state, medjax.sharding.state_shardings(state, mesh))
    step = medjax.make_train_step(
        state, schedule=as_schedule(None), options=options, accumulation=1, mesh=mesh
    )
    batch, no_flush = medjax.sharding.put_batch(batch, mesh), np.asarray(False)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        state, stats = step(state, batch, no_flush)
        jax.block_until_ready((state, stats))
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:]), seconds[0]


def _items(count: int) -> dict[str, float]:
    """Train the tiny MLP on `count` items that are made when they are asked for."""

    class Items:
        def __len__(self) -> int:
            return count

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": np.full(8, index % 97, np.float32), "y": index % 3}

    durations = overhead.Durations()
    with tempfile.TemporaryDirectory() as folder:
        config = medjax.TrainerConfig(folder, 1e-3, 2, batch_size=32, seed=0)
        medjax.train(overhead.COMPONENT, config, Items(), callback=durations)
    steps = -(-count // 32)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"step_us": 1e6 * durations.seconds[-1] / steps, "peak_mb": peak}


if __name__ == "__main__":
    main()
