"""Predict the entities, classes or relations of notes with a trained component.

Notes are read, predicted and written in chunks, so memory does not grow with their number. A second
start with the same arguments goes on where the first one ended. Notes that cannot be read are
skipped, listed at the end and in OUTPUT/skipped.tsv.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from medjax.cli.arguments import add_computation, add_trained

__all__ = ["add_arguments", "run"]

INPUT_FORMATS = ("text", "jsonl")
FORMATS = ("brat", "jsonl", "doccano", "csv")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    add_trained(parser)
    add = parser.add_argument
    add(
        "--input",
        required=True,
        type=Path,
        metavar="NOTES",
        help="a folder of .txt files (BRAT, with .ann files, for relations), a .txt file, or JSON "
        "lines with the field text and maybe name or id",
    )
    add(
        "--input-format",
        choices=INPUT_FORMATS,
        help="text: a folder of .txt files, or a file that is one note; jsonl: JSON lines "
        "(default: told from the name)",
    )
    add("--output", required=True, type=Path, metavar="FOLDER", help="folder for the predictions")
    add(
        "--format",
        choices=FORMATS,
        help="brat: .txt and .ann for each note; jsonl: medkit's JSON lines, or labels and "
        "probabilities of texts; doccano; csv. Default: brat, or csv for classes of texts",
    )
    add_computation(parser)


def run(arguments: argparse.Namespace) -> int:
    """Predict all notes; return 0, or 1 if there are notes but none could be read."""
    from medjax.cli.prediction import predict_notes

    done = predict_notes(arguments)
    told = [f"{done.nb_predicted:,} notes predicted into {arguments.output}"]
    if done.nb_complete:
        told.append(f"{done.nb_complete:,} were there from an earlier start")
    if done.skipped.count:
        told.append(f"{done.skipped.count:,} skipped, listed in {done.skipped.file}")
    print("; ".join(told), *done.skipped.first, sep="\n  ", file=sys.stderr)
    return 0 if done.nb_predicted or done.nb_complete else 1
