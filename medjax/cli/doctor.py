"""Check this machine: versions known to be bad, devices, memory, cores, disk, a small product.

The exit status is 1 if something is known to be bad: a release that medjax excludes, a device that
does not start or multiplies wrongly, a folder that cannot be written to.
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
        "--folder",
        type=Path,
        default=Path(),
        help="where checkpoints will go, to see how much is free (default: the current folder)",
    )
    add("--json", action="store_true", help="print everything as one object of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0, or 1 if something is known to be bad."""
    from medjax.cli.diagnosis import as_text, diagnose
    from medjax.cli.printing import as_json

    found = diagnose(arguments.folder)
    print(as_json(found) if arguments.json else as_text(found))
    return 0 if found["sound"] else 1
