"""Tell what is in a checkpoint or a run, whether it is sound, and what resuming it would do.

Every file is compared with its SHA-256. No pickle is opened, no component or device is needed, and
nothing is changed. The exit status is 1 if something is damaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.epilog = " ".join((__doc__ or "").split("\n\n", 1)[1].split())
    add = parser.add_argument
    add(
        "path",
        type=Path,
        metavar="CHECKPOINT_OR_RUN",
        help="folder of a checkpoint, or the output folder of a run",
    )
    add("--json", action="store_true", help="print everything as one object of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0, or 1 if something is damaged."""
    from medjax.cli.inspection import inspect
    from medjax.cli.inspection_text import as_text
    from medjax.cli.printing import as_json

    found = inspect(arguments.path)
    print(as_json(found) if arguments.json else as_text(found))
    return 0 if found["sound"] else 1
