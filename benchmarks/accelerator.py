"""Training steps of a BERT-base-sized random encoder: torch, the Hugging Face Trainer, and medjax.

Batches of one shape without padding, AdamW, a process for each contender and arithmetic, which does
all shapes, the smallest first. An epoch of a few steps is timed as a whole, data included (but for
the jitted loop, whose batches are ready); the first, which compiles, is left out. Attention weights
are not dropped, so that cuDNN's attention applies; --attention-dropout 0.1 is BERT's.

    pip install "medjax[bench]"
    python benchmarks/accelerator.py
    python benchmarks/accelerator.py --rows 2 --lengths 16 --layers 2 --hidden-size 128 --steps 3
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import machine
from on_device.work import Work

PRECISIONS = ("float32", "tf32", "bfloat16")
CONTENDERS = {
    "torch loop": ("torch_side", "compiled", PRECISIONS),
    "HF Trainer": ("torch_side", "compiled", PRECISIONS),
    "medjax_torch": ("torch_side", "cudnn", ("float32", "bfloat16")),
    "medjax": ("functional", "cudnn", ("float32", "bfloat16")),
    "jitted loop": ("functional", "cudnn", ("float32", "bfloat16")),
}
"""Name to the module of `on_device`, the option besides none, and the types multiplied in."""

PEAKS = {"float32": 66.9, "tf32": 494.7, "bfloat16": 989.4}
"""TFLOP/s of dense products by NVIDIA's data sheet of the H100 SXM, which are the H200's too."""

MARK = "measured: "
"""Begins the lines that a contender's process prints for this one; libraries print others."""


def main() -> None:
    """Run all contenders and print the table, line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    add("--rows", type=int, nargs="+", default=[16, 64, 256])
    add("--lengths", type=int, nargs="+", default=[128, 512])
    add("--layers", type=int, default=12)
    add("--hidden-size", type=int, default=768, help="a multiple of 64, the size of a head")
    add("--steps", type=int, default=20, help="of an epoch")
    add("--epochs", type=int, default=4, help="at least two, as the first is left out")
    add("--attention-dropout", type=float, default=0.0)
    add("--one", nargs=3, help=argparse.SUPPRESS)  # in this process: name, option, precision
    args = parser.parse_args()
    if args.one:
        for result in measured(args):
            print(f"{MARK}{json.dumps(result)}", flush=True)
        return
    print(machine.describe(), flush=True)
    print(
        "| contender | multiplied in | batch | step, ms | spread | tokens/s | TFLOP/s "
        f"| of the peak | first epoch, s | device MB |\n|{'---|' * 10}",
        flush=True,
    )
    for name in args.only:
        _, option, precisions = CONTENDERS[name]
        for precision, chosen in itertools.product(precisions, ("", option)):
            if precision in args.precisions and (chosen, precision) != ("cudnn", "float32"):
                run(name, chosen, precision)


def run(name: str, option: str, precision: str) -> None:
    """Run one contender in a new process with the arguments of this one; print its lines."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", name, option, precision]
    label = f"{name}, {option}" if option else name
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if text.startswith(MARK):
                result = json.loads(text.removeprefix(MARK))
                print(f"| {label} | {precision} {line(result)}", flush=True)
    if process.returncode:
        print(f"| {label} | {precision} | failed, see above |", flush=True)


def line(result: dict[str, Any]) -> str:
    """Return the figures of a shape as the rest of a line of the table."""
    batch = f"| {result['rows']} x {result['length']} |"
    if "failed" in result:
        return f"{batch} {result['failed']} |"
    first, *seconds = (epoch / result["steps"] for epoch in result["epochs_s"])
    step = statistics.median(seconds)
    rate = result["flops"] / step / 1e12
    share = f"{rate / result['peak']:.0%}" if result["peak"] else "-"
    memory = "-" if result["device_mb"] is None else f"{result['device_mb']:,.0f}"
    return (
        f"{batch} {1e3 * step:.2f} | {1e3 * min(seconds):.2f}-{1e3 * max(seconds):.2f} "
        f"| {result['rows'] * result['length'] / step:,.0f} | {rate:.2f} | {share} "
        f"| {first * result['steps']:.1f} | {memory} |"
    )


def measured(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what was measured of one contender, or how it failed, for each shape."""
    name, option, precision = args.one
    module = importlib.import_module(f"on_device.{CONTENDERS[name][0]}")
    for rows, length in sorted(itertools.product(args.rows, args.lengths), key=math.prod):
        work = Work(
            precision,
            option,
            rows,
            length,
            args.hidden_size,
            args.layers,
            args.steps,
            args.epochs,
            args.attention_dropout,
        )
        result: dict[str, Any] = {"rows": rows, "length": length, "steps": args.steps}
        try:
            result["epochs_s"] = module.train(name, work)
        except Exception as error:  # what has no room, or does not compile, is a line of its own
            first_line = str(error).partition("\n")[0]
            result["failed"] = f"{type(error).__name__}: {first_line[:200]}"
        result["flops"], result["device_mb"] = work.step_flops, machine.device_mb()
        known = any(card in machine.device_kind() for card in ("H100", "H200"))
        result["peak"] = PEAKS[precision] if known else None
        yield result


if __name__ == "__main__":
    main()
