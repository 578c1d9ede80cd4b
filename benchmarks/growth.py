"""Measure how cost grows with items, steps, rows and tokens of a batch, and layers of the model.

The rows for items and steps are complete runs of `medjax.train` on a tiny MLP, each in a process of
its own; their memory is the peak of the process, which has to stay flat. The others are a training
step of a random encoder as wide as MiniLM; their memory is what XLA plans for arguments and
temporaries. The table takes about five minutes on two CPU cores:

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
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
import overhead

import medjax
from medjax.components import TokenClassification
from medjax.models import BertConfig, TokenClassifier

TAGS = ("O", "B-problem", "I-problem")
BATCH = 32  # rows of a batch of the MLP
MIB = 2**20


class Row(NamedTuple):
    """A row of the table: what grows, its size, and what that costs."""

    grows: str
    size: int
    seconds: float
    rate: str
    compiling: float
    megabytes: float

    def __str__(self) -> str:
        digits = 3 if self.seconds < 1e-2 else 0
        return (
            f"| {self.grows} | {self.size:,} | {1e3 * self.seconds:,.{digits}f} | {self.rate} | "
            f"{self.compiling:.1f} | {self.megabytes:.0f} |"
        )


def main() -> None:
    """Measure everything and print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 40, 400])
    parser.add_argument("--rows", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--lengths", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 6, 12])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)  # in this process
    args = parser.parse_args()
    if args.one:
        print(json.dumps(run(*args.one)))
        return
    print("| grows | size | step, ms | per second | compilation, s | memory, MB |")
    print("|---|---|---|---|---|---|")
    for row in rows(args):
        print(row, flush=True)


def rows(args: argparse.Namespace) -> Iterator[Row]:
    """Yield the rows; processes first, since Linux counts their parent's memory in their peak."""
    for items in args.items:
        yield in_a_process("items", items, 2)._replace(size=items)
    for epochs in args.epochs:
        yield in_a_process("steps", 10**4, epochs)
    for value in args.rows:
        yield step("rows", value, args.precision, rows=value)
    for value in args.lengths:
        yield step("tokens in a row", value, args.precision, length=value)
    for value in args.layers:
        yield step("layers", value, args.precision, layers=value)
    for value in args.layers:
        grows = "layers, gradients checkpointed"
        yield step(grows, value, args.precision, layers=value, checkpointing=True)


def in_a_process(grows: str, items: int, epochs: int) -> Row:
    """Measure a complete run in a new process."""
    command = [sys.executable, __file__, "--one", str(items), str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured = json.loads(done.stdout.splitlines()[-1])
    rate = f"{BATCH / measured['seconds']:,.0f} items"
    size = epochs * -(-items // BATCH)
    return Row(grows, size, measured["seconds"], rate, measured["compiling"], measured["megabytes"])


def run(items: int, epochs: int) -> dict[str, float]:
    """Train the tiny MLP on items that are made on demand."""

    class Items:
        def __len__(self) -> int:
            return items

        def __getitem__(self, index: int) -> dict[str, Any]:
            return {"x": np.full(8, index % 97, np.float32), "y": index % 3}

    durations = overhead.Durations()
    options = medjax.Options(compilation_cache=None)
    with tempfile.TemporaryDirectory() as folder:
        config = medjax.TrainerConfig(
            folder, 1e-3, epochs, batch_size=BATCH, seed=0, checkpoint_period=0
        )
        result = medjax.train(
            overhead.COMPONENT, config, Items(), callback=durations, options=options
        )
    return {
        "seconds": statistics.median(durations.seconds[1:]) / -(-items // BATCH),
        "compiling": sum(compilation.seconds for compilation in result.compilations),
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def step(
    grows: str,
    size: int,
    precision: Any,
    *,
    rows: int = 16,
    length: int = 64,
    layers: int = 6,
    checkpointing: bool = False,
) -> Row:
    """Compile a training step of an encoder and time it."""
    encoder = BertConfig(
        vocab_size=30522,
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
        max_position_embeddings=512,
    )
    model = TokenClassifier(encoder, len(TAGS), checkpointing)
    component = TokenClassification(model, None, TAGS).component
    options, mesh = medjax.Options(precision=precision), medjax.make_mesh()
    optimizer = medjax.make_optimizer(component, options)
    state = medjax.create_state_on(mesh, component, optimizer, seed=0, learning_rate=1e-4)
    train_step = medjax.make_train_step(
        state,
        options=options,
        mesh=mesh,
        separate_update=False,  # one program, whose memory is that of the step
    )
    ids = np.random.default_rng(0).integers(1, 30522, (rows, length), dtype=np.int32)
    columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids % len(TAGS)}
    batch = medjax.BatchData(columns, row_mask=np.ones(rows, np.float32))
    batch = medjax.sharding.put_batch(batch, mesh)
    began = time.perf_counter()
    compiled = train_step.lower(state, batch).compile()
    compiling = time.perf_counter() - began
    memory = compiled.memory_analysis()
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(state, batch))
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds[1:])
    rate = f"{rows * length / median:,.0f} tokens"
    megabytes = (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / MIB
    return Row(grows, size, median, rate, compiling, megabytes)


if __name__ == "__main__":
    main()
