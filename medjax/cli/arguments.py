"""Arguments that several commands have, and what is checked of them at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medjax.cli.tasks import Task

__all__ = [
    "add_computation",
    "add_json",
    "add_reading",
    "add_trained",
    "adder_for",
    "batch_size",
    "cache_of",
    "check_task",
    "positive",
    "probability",
]


def batch_size(parser: argparse.ArgumentParser) -> None:
    """Add the number of rows of a batch."""
    parser.add_argument(
        "--batch-size", type=positive, default=16, help="rows of a batch (default: 16)"
    )


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Add a trained component, and what of it may be other than it is saved."""
    add = parser.add_argument
    add("--model", required=True, help="folder of a checkpoint, or the name of a model")
    add(
        "--threshold",
        type=probability,
        help="least probability of a class where texts may have several (default: those saved "
        "with the model, or 0.5)",
    )
    add("--max-length", type=positive, help="tokens of a window (default: as in training)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the choice to print findings for programs."""
    parser.add_argument("--json", action="store_true", help="print one object of JSON")


def add_computation(parser: argparse.ArgumentParser) -> None:
    """Add how a command computes; none of it changes results beyond rounding."""
    batch_size(parser)
    add = parser.add_argument
    add("--precision", choices=("float32", "bfloat16"), default="float32")
    add(
        "--compilation-cache",
        default="auto",
        metavar="FOLDER",
        help="where compiled programs are kept for the next start; 'none' for nowhere (default: "
        "auto, a folder in your home)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add how annotated data are read."""
    from medjax.text.readers import FORMATS, TABLE_FORMATS

    add = parser.add_argument
    add(
        "--input-format",
        choices=(*FORMATS, *TABLE_FORMATS),
        metavar="FORMAT",
        help=f"format of the data, one of {', '.join(FORMATS)}; classes of texts: one of "
        f"{', '.join(TABLE_FORMATS)} (default: told from name and content)",
    )
    add("--encoding", help="encoding of the data, such as cp1252 (default: utf-8)")
    adder_for("entities", parser)(
        "--sentences",
        action="store_true",
        help="entities: split documents into sentences, instead of windows of the model's length",
    )
    of_texts = adder_for("documents", parser)
    of_texts(
        "--text", default="text", metavar="COLUMN", help="classes of texts: column of the texts"
    )
    of_texts(
        "--label", default="label", metavar="COLUMN", help="classes of texts: column of the labels"
    )
    of_texts(
        "--separator",
        help="classes of texts: what separates the labels of a text that may have several",
    )
    of_texts(
        "--group",
        metavar="COLUMN",
        help="classes of texts: column of the patient, whose texts stay in one part and are "
        "resampled together",
    )


def adder_for(task: Task, parser: argparse.ArgumentParser) -> Callable[..., None]:
    """Return ``parser.add_argument`` for arguments that mean something to one task alone.

    `check_task` refuses them where the task is another.

    Parameters
    ----------
    task : {"entities", "documents", "relations"}
        The task.
    parser : argparse.ArgumentParser
        Where the arguments are added.
    """

    def add(name: str, **settings: Any) -> None:
        action = parser.add_argument(name, **settings)
        owned = {**(parser.get_default(_OWNED) or {}), action.dest: (name, task, action.default)}
        parser.set_defaults(**{_OWNED: owned})

    return add


_OWNED = "of_one_task"


def check_task(arguments: argparse.Namespace, task: Task) -> None:
    """Raise ValueError if an argument is given that only another task has.

    Parameters
    ----------
    arguments : argparse.Namespace
        As parsed with the arguments of `adder_for`.
    task : {"entities", "documents", "relations"}
        What is to be done.
    """
    for dest, (name, owner, default) in getattr(arguments, _OWNED).items():
        if owner != task and (value := getattr(arguments, dest)) != default:
            given = name if value is True else f"{name} {value}"
            kinds = {"documents": "classes of texts"}
            msg = (
                f"{given} is for {kinds.get(owner, owner)}, but the data are read for "
                f"{kinds.get(task, task)}: leave it out"
            )
            raise ValueError(msg)


def cache_of(arguments: argparse.Namespace) -> str | Path | None:
    """Return the folder of compiled programs as `medjax.Options` takes it."""
    folder: str = arguments.compilation_cache
    return None if folder == "none" else folder


def positive(text: str) -> int:
    """Read a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def probability(text: str) -> float:
    """Read a number between 0 and 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number
