"""Measure F1 over several seeds, with the settings that medkit's own trainer was measured with.

MiniLM, batch size 16, learning rate 1e-4, AdamW with torch's defaults, 3 epochs, no warm-up; entity
F1 on the test split after each epoch, by the rule of conlleval, which medkit uses. Batches are
grouped by length, which is medjax's default; --uniform draws them at random, as medkit does. With
--overlapping each label has a sequence of tags of its own. With --falling the rate falls to 0 along
a line, as in the examples, and --max-grad-norm 1 clips gradients as they do.

    python benchmarks/yardstick.py --data FOLDER --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import optax

import medjax
from medjax.components import TokenClassification
from medjax.text.readers import read_documents

LEARNING_RATE = 1e-4
BATCH_SIZE = 16


def main() -> None:
    """Train with every seed and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train and test .tsv")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--sentences", type=int, help="train on this many sentences")
    parser.add_argument("--uniform", action="store_true", help="do not group batches by length")
    parser.add_argument("--overlapping", action="store_true", help="tag each label by itself")
    parser.add_argument("--falling", action="store_true", help="let the rate fall to 0")
    parser.add_argument("--max-grad-norm", type=float, help="clip gradients at this norm")
    parser.add_argument("--arithmetic", default="exact", choices=("exact", "medkit"))
    args = parser.parse_args()
    train, test = (
        read_documents(args.data / f"{part}.tsv", overlapping=args.overlapping)
        for part in ("train", "test")
    )
    train = train[: args.sentences]
    labels = sorted({e.label for document in train for e in document.entities})
    tagger = TokenClassification.from_pretrained(
        "minilm", labels, max_length=128, overlapping=args.overlapping
    )
    nb_updates = -(-len(train) // BATCH_SIZE) * args.epochs
    falling = optax.linear_schedule(LEARNING_RATE, 0, nb_updates)
    finals = []
    for seed in args.seeds:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            result = medjax.train(
                tagger.component,
                medjax.TrainerConfig(
                    folder, LEARNING_RATE, args.epochs, batch_size=BATCH_SIZE, seed=seed
                ),
                train,
                test,
                metrics_computer=medjax.SpanMetrics(tagger.tags),
                schedule=falling if args.falling else None,
                options=medjax.Options(
                    cache_preprocessed=True,
                    precision=args.precision,
                    max_grad_norm=args.max_grad_norm,
                    loss_arithmetic=args.arithmetic,
                    length_window=0 if args.uniform else medjax.Options().length_window,
                ),
            )
        scores = [row["eval"]["micro_f1-score"] for row in result.history]
        losses = [row["train"]["loss"] for row in result.history]
        finals.append(scores[-1])
        print(
            f"seed {seed}: test F1 {' '.join(f'{score:.3f}' for score in scores)}, train loss "
            f"{' '.join(f'{loss:.3f}' for loss in losses)}, {result.nb_compilations} compilations, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
    spread = f", standard deviation {statistics.stdev(finals):.3f}" if len(finals) > 1 else ""
    print(
        f"mean F1 after {args.epochs} epochs, {len(finals)} seeds: "
        f"{statistics.mean(finals):.3f}{spread}"
    )


if __name__ == "__main__":
    main()
