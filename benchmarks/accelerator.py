"""Time training steps of a random BERT-base encoder in torch, the Hugging Face Trainer and medjax.

Batches have one shape and no padding; the optimizer is AdamW. Each contender runs each precision in
a process of its own, which goes through all shapes, the smallest first. An epoch of a few steps is
timed as a whole, including its data (except in the jitted loop, whose batches are prepared
beforehand); the first epoch, which compiles, is left out. There is no attention dropout, so that
cuDNN's attention applies; --attention-dropout 0.1 is that of BERT.

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
"""Maps a name to its module in `on_device`, its option besides "", and its precisions."""

PEAKS = {"float32": 66.9, "tf32": 494.7, "bfloat16": 989.4}
"""TFLOP/s of dense matrix products, from NVIDIA's H100 SXM data sheet; the H200 has the same."""

MARK = "measured: "
"""Prefix of the lines in which a contender's process reports; libraries print other lines."""


def main() -> None:
    """Run all contenders and print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    add("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    add("--rows", type=int, nargs="+", default=[16, 64, 256])
    add("--lengths", type=int, nargs="+", default=[128, 512])
    add("--layers", type=int, default=12)
    add(
        "--hidden-size",
        type=int,
        default=768,
        help="a multiple of 64, the size of an attention head",
    )
    add("--steps", type=int, default=20, help="steps in an epoch")
    add("--epochs", type=int, default=4, help="at least two, since the first is left out")
    add("--attention-dropout", type=float, default=0.0)
    add("--one", nargs=3, help=argparse.SUPPRESS)  # in this process: name, option, precision
    args = parser.parse_args()
    if args.one:
        for result in measured(args):
            print(f"{MARK}{json.dumps(result)}", flush=True)
        return
    print(machine.describe(), flush=True)
    print(
        "| contender | precision | batch | step, ms | spread | tokens/s | TFLOP/s "
        f"| share of peak | first epoch, s | device MB |\n|{'---|' * 10}",
        flush=True,
    )
    for name in args.only:
        _, option, precisions = CONTENDERS[name]
        for precision, chosen in itertools.product(precisions, ("", option)):
            if precision in args.precisions and (chosen, precision) != ("cudnn", "float32"):
                run(name, chosen, precision)


def run(name: str, option: str, precision: str) -> None:
    """Run one contender in a new process, with this one's arguments, and print its rows."""
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
    """Return the measurements of one shape as the rest of a row of the table."""
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
    """Yield the measurements of one contender for each shape, or how it failed."""
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
        except Exception as error:  # out of memory, or does not compile: a row of its own
            first_line = str(error).partition("\n")[0]
            result["failed"] = f"{type(error).__name__}: {first_line[:200]}"
        result["flops"], result["device_mb"] = work.step_flops, machine.device_mb()
        known = any(card in machine.device_kind() for card in ("H100", "H200"))
        result["peak"] = PEAKS[precision] if known else None
        yield result


if __name__ == "__main__":
    main()
