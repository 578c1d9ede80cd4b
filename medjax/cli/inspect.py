"""Tell what is in a checkpoint or a run, whether it is sound, and what resuming it would do.

Every file is compared with its SHA-256. No pickle is opened, no component or device is needed, and
nothing is changed. The exit status is 1 if something is damaged.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from medjax.cli.arguments import add_json

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to a parser."""
    parser.add_argument(
        "path",
        type=Path,
        metavar="CHECKPOINT_OR_RUN",
        help="folder of a checkpoint, or the output folder of a run",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the findings; return 0, or 1 if something is damaged."""
    from medjax.cli.inspection import inspect
    from medjax.cli.inspection_text import as_text
    from medjax.cli.printing import print_findings

    return print_findings(inspect(arguments.path), as_text, for_programs=arguments.json)
