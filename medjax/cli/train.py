"""Fine-tune a pretrained encoder on annotated documents, and report on those it has not seen.

OUTPUT gets the checkpoints, the scores of every epoch, learning curves, a report and, in the folder
model, the component of the best epoch. A run that was interrupted or killed goes on with --resume;
`python -m medjax inspect OUTPUT` tells where it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medjax.cli.arguments import add_computation, add_reading, adder_for, positive
from medjax.cli.tasks import DEFAULTS, MODEL

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    add = parser.add_argument
    add("--task", required=True, choices=[*DEFAULTS], help="what is annotated in the data")
    add(
        "--data",
        required=True,
        nargs="+",
        type=Path,
        help="a folder with train, devel and test, or 1 to 3 files or folders in that order; what "
        "is missing is split off, 80 / 10 / 10",
    )
    add("--model", required=True, help="folder of an encoder or a checkpoint, or a name")
    add("--output", required=True, type=Path, metavar="FOLDER", help="folder for the results")
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    rates = ", ".join(f"{each.learning_rate:g} for {task}" for task, each in DEFAULTS.items())
    counts = ", ".join(f"{each.nb_epochs} for {task}" for task, each in DEFAULTS.items())
    add("--epochs", type=positive, help=f"(default: {counts})")
    add("--learning-rate", type=float, help=f"falls to 0 in the run (default: {rates})")
    add("--weight-decay", type=float, default=0.01, help="(default: 0.01)")
    add(
        "--warmup",
        type=float,
        default=0.1,
        help="fraction of the updates in which a factor rises to 1 (default: 0.1)",
    )
    add("--seed", type=int, default=0, help="(default: 0)")
    add("--save-interval", type=positive, help="batches between checkpoints within an epoch")
    add("--max-length", type=positive, help="tokens of a window (default: as many as fit, to 512)")
    add_computation(parser)
    add_reading(parser)
    _add_of_tasks(parser)


def _add_of_tasks(parser: argparse.ArgumentParser) -> None:
    add = adder_for("entities", parser)
    add(
        "--scheme",
        choices=("iob2", "bilou", "iobes"),
        default="iob2",
        help="entities: how they are written as tags (default: iob2)",
    )
    add(
        "--overlapping", action="store_true", help="entities: those of different labels may overlap"
    )
    adder_for("documents", parser)(
        "--multi-label",
        action="store_true",
        help="documents: a text may have any number of labels; implied by --separator",
    )
    add = adder_for("relations", parser)
    add(
        "--reach",
        type=positive,
        help="relations: most characters between two related entities (default: those of the "
        "model, or 300)",
    )
    add(
        "--context",
        type=positive,
        help="relations: characters to read before and after them (default: those of the model, "
        "or 200)",
    )
    add(
        "--negatives",
        type=float,
        default=2.0,
        help="relations: pairs without one that are drawn in each epoch, for each with one; -1 for "
        "all (default: 2)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Train and print the report; return 0."""
    from medjax.cli.training import train_model

    trained = train_model(arguments)
    print(f"\n{trained.text}")
    print(f"\nModel: {arguments.output / MODEL}")
    return 0
