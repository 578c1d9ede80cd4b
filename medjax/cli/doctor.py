"""Check this machine: versions known to be bad, devices, memory, cores, disk, a small product.

The exit status is 1 if something is known to be bad: a release that medjax excludes, a device that
does not start or multiplies wrongly, a folder that cannot be written to.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medjax.cli.arguments import add_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(),
        help="where checkpoints will go, to see how much is free (default: the current folder)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0, or 1 if something is known to be bad."""
    from medjax.cli.diagnosis import as_text, diagnose
    from medjax.cli.printing import print_findings

    return print_findings(diagnose(arguments.folder), as_text, for_programs=arguments.json)
