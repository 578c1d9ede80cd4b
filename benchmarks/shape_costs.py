"""Measure what a batch shape costs: seconds to compile a step for it, and seconds per position.

`medjax.data.fitting` chooses the lengths that batches are padded to by such a table, which this
script measures on this machine: steps of random taggers of several sizes, in both precisions.
The last lines are the constants of the model: seconds to compile any training step, further seconds
for the square root of a million parameters, and seconds per position and million parameters. About
four minutes on two CPU cores:

    python benchmarks/shape_costs.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

import jax
import machine
import numpy as np

import medjax
from medjax.components import TokenClassification
from medjax.models import BertConfig, TokenClassifier

TAGS = ("O", "B-problem", "I-problem")
ROWS, LENGTH = 16, 40
SIZES = {"tiny": (2, 128), "MiniLM": (6, 384), "BERT-base": (12, 768)}
"""Layers and width of the encoders."""


class Cost(NamedTuple):
    """What a shape of a step costs."""

    millions: float  # parameters
    compiling: float  # seconds
    position: float  # seconds


def main() -> None:
    """Measure all sizes, and print the table and the constants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=tuple(SIZES))
    args = parser.parse_args()
    print(machine.describe(), flush=True)
    print("| encoder | step | precision | parameters, M | compilation, s | position, us |")
    print("|---|---|---|---|---|---|")
    costs: dict[tuple[str, str], list[Cost]] = {}
    for size in args.sizes:
        for precision in ("float32", "bfloat16"):
            for phase, cost in measure(size, precision).items():
                costs.setdefault((phase, precision), []).append(cost)
                print(
                    f"| {size} | {phase} | {precision} | {cost.millions:.1f} "
                    f"| {cost.compiling:.2f} | {1e6 * cost.position:.1f} |",
                    flush=True,
                )
    for (phase, precision), measured in costs.items():
        base, slope = fit(measured)
        token = statistics.median(cost.position / cost.millions for cost in measured)
        print(f"{phase}, {precision}: {base:.2f} s + {slope:.2f} s, {token:.1e} s per position")


def fit(costs: list[Cost]) -> tuple[float, float]:
    """Return the line through the seconds of compiling over the root of a million parameters."""
    roots = np.sqrt([cost.millions for cost in costs])
    if len(costs) == 1:
        return costs[0].compiling, 0.0
    slope, base = np.polyfit(roots, [cost.compiling for cost in costs], 1)
    return float(base), float(slope)


def measure(size: str, precision: Any) -> dict[str, Cost]:
    """Compile and time a training and an evaluation step."""
    layers, width = SIZES[size]
    encoder = BertConfig(
        vocab_size=30522,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        max_position_embeddings=512,
    )
    component = TokenClassification(TokenClassifier(encoder, len(TAGS)), None, TAGS).component
    options, mesh = medjax.Options(precision=precision), medjax.make_mesh()
    optimizer = medjax.make_optimizer(component, options)
    state = medjax.create_state_on(mesh, component, optimizer, seed=0, learning_rate=1e-4)
    train_step = medjax.make_train_step(state, options=options, mesh=mesh, separate_update=False)
    eval_step = medjax.make_eval_step(component.forward, options=options, mesh=mesh)
    ids = np.random.default_rng(0).integers(1, 30522, (ROWS, LENGTH), dtype=np.int32)
    columns = {"input_ids": ids, "attention_mask": np.ones_like(ids), "labels": ids % len(TAGS)}
    batch = medjax.BatchData(columns, row_mask=np.ones(ROWS, np.float32))
    batch = medjax.sharding.put_batch(batch, mesh)
    millions = sum(leaf.size for leaf in jax.tree.leaves(state.params)) / 1e6
    with medjax.keep_memory():
        variables = state.variables
        evaluated = timed(eval_step.lower(variables, batch), lambda step: step(variables, batch))

        def train(step: Any) -> Any:
            nonlocal state
            state, stats = step(state, batch)
            return state, stats

        trained = timed(train_step.lower(state, batch), train)
    return {"training": Cost(millions, *trained), "evaluation": Cost(millions, *evaluated)}


def timed(lowered: Any, run: Any) -> tuple[float, float]:
    """Return the seconds to compile a step, and those it takes per position."""
    began = time.perf_counter()
    step = lowered.compile()
    compiling = time.perf_counter() - began
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(run(step))
        seconds.append(time.perf_counter() - began)
    return compiling, statistics.median(seconds[1:]) / (ROWS * LENGTH)


if __name__ == "__main__":
    main()
