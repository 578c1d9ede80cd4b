"""Time a training step of a random ModernBERT on long rows, in medjax and in transformers.

Each contender runs in a process of its own: AdamW, all tokens labelled, no padding. The first step
compiles and is reported by itself. Memory is the peak of the process, or of the device.

    pip install "medjax[bench]"
    python benchmarks/long_encoder.py
    python benchmarks/long_encoder.py --lengths 512 --layers 2 --hidden-size 128 --steps 2
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import machine
import numpy as np

CONTENDERS = ("medjax", "medjax, checkpointing", "sdpa", "eager", "compiled")
"""medjax, and the attention implementations of transformers; "compiled" is sdpa, compiled."""

NB_LABELS, VOCABULARY = 5, 50368


def main() -> None:
    """Run all contenders and print the table, row by row."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS)
    add("--precisions", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    add("--lengths", nargs="+", type=int, default=[4096])
    add("--layers", type=int, default=22)
    add("--hidden-size", type=int, default=768, help="a multiple of 64, the size of a head")
    add("--steps", type=int, default=3, help="timed steps, after the first")
    add("--one", nargs=3, help=argparse.SUPPRESS)  # in this process: name, precision, length
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args)))
        return
    print(machine.describe(), flush=True)
    print("| contender | precision | length | step, s | first, s | peak, MB |")
    print("|---|---|---|---|---|---|", flush=True)
    for length, precision, name in itertools.product(args.lengths, args.precisions, args.only):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name, precision, str(length)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"| {name} | {precision} | {length} | failed, see above | | |", flush=True)
            continue
        result = json.loads(done.stdout.splitlines()[-1])
        first, *seconds = result["seconds"]
        print(
            f"| {name} | {precision} | {length} | {statistics.median(seconds):.3f} | {first:.1f} "
            f"| {result['peak_mb']:,.0f} |",
            flush=True,
        )


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of each step of one contender, and its peak memory."""
    name, precision, length = args.one[0], args.one[1], int(args.one[2])
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.layers,
        "num_attention_heads": args.hidden_size // 64,
        "intermediate_size": args.hidden_size * 3 // 2,
        "pad_token_id": 0,
    }
    ids = np.random.default_rng(0).integers(5, VOCABULARY, (1, length)).astype(np.int32)
    make = in_medjax if name.startswith("medjax") else in_torch
    step = make(name, precision, sizes, ids)
    seconds = []
    for _ in range(args.steps + 1):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    peak = machine.device_mb() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak}


def in_medjax(
    name: str, precision: str, sizes: dict[str, int], ids: np.ndarray
) -> Callable[[], None]:
    """Return a function that takes a step of medjax."""
    import jax

    import medjax
    from medjax.components import TokenClassification
    from medjax.models import ModernBertConfig, TokenClassifier

    model = TokenClassifier(
        ModernBertConfig(**sizes),
        NB_LABELS,
        gradient_checkpointing="checkpointing" in name,
    )
    tags = ("O", *(f"B-{number}" for number in range(1, NB_LABELS)))
    tagger = TokenClassification(model, None, tags)  # type: ignore[arg-type]
    mesh, options = medjax.make_mesh(), medjax.Options(precision=precision)  # type: ignore
    optimizer = medjax.make_optimizer(tagger.component, options)
    state = medjax.create_state_on(mesh, tagger.component, optimizer, seed=0, learning_rate=1e-5)
    train = medjax.make_train_step(state, options=options, mesh=mesh)
    batch = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "labels": ids % NB_LABELS,
        "row_mask": np.ones(1, np.float32),
    }

    def step() -> None:
        nonlocal state
        state, _ = train(state, batch)
        jax.block_until_ready(state)

    return step


def in_torch(
    name: str, precision: str, sizes: dict[str, int], ids: np.ndarray
) -> Callable[[], None]:
    """Return a function that takes a step of transformers."""
    import torch
    import transformers

    special = {"bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    config = transformers.ModernBertConfig(**sizes, **special, num_labels=NB_LABELS)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    attention = "eager" if name == "eager" else "sdpa"
    made: Any = transformers.ModernBertForTokenClassification
    model = made._from_config(config, attn_implementation=attention).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    called = torch.compile(model) if name == "compiled" else model
    tokens = torch.tensor(ids, device=device).long()
    mask = torch.ones_like(tokens)

    def step() -> None:
        half = precision == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = called(input_ids=tokens, attention_mask=mask, labels=tokens % NB_LABELS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    main()
