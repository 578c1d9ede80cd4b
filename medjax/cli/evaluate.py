"""Score a trained component on annotated data, with 95 % intervals.

Whether the model finds entities, classes of texts or relations is told from its folder. Intervals
are by document, by sentence where the data are sentences or, for classes of texts with --group, by
group. Entities and relations that the model cannot find, as those with a label that it does not
know, count as missed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medjax.cli.arguments import add_computation, add_json, add_reading, add_trained

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    add_trained(parser)
    add = parser.add_argument
    add(
        "--data",
        required=True,
        type=Path,
        help="annotated data in any format that medjax reads, told from name and content; for "
        "classes of texts, a table",
    )
    add(
        "--split",
        help="part of the data: a file or folder in --data, part of a dataset or, for the corpus "
        "that the model was trained on, train, devel or test; needed where there are any",
    )
    add_reading(parser)
    add_computation(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the scores; return 0."""
    from medjax.cli.evaluation import evaluate_model, numbers_of
    from medjax.cli.printing import as_json

    report = evaluate_model(arguments)
    text = as_json(numbers_of(report))
    print(text if arguments.json else f"{report.text}\n\nloss  {report.loss:.4f}")
    return 0
