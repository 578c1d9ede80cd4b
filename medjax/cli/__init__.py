"""The command line, ``python -m medjax COMMAND``, with a module for each command.

A command's module imports what the command needs only when it runs, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType

from medjax.checkpoint import CheckpointError
from medjax.cli import doctor, evaluate, inspect, predict, train
from medjax.data import ItemError
from medjax.loop.monitor import NonFiniteError
from medjax.runtime import OutOfMemoryError

__all__ = ["main", "make_parser"]

_COMMANDS: dict[str, ModuleType] = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "inspect": inspect,
    "doctor": doctor,
}
"""Modules with `add_arguments(parser)` and `run(arguments)`, which returns the exit status.

The first line of their documentation is the summary in the help; the rest stands below it.
"""

_TOLD = (
    ValueError,
    ImportError,
    OSError,
    CheckpointError,
    ItemError,
    NonFiniteError,
    OutOfMemoryError,
)
"""Errors whose messages say what to do, so that a traceback would only hide it."""

_INTERRUPTED = 130  # of a process that Ctrl-C ended, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    It is 2 for an error, other than of a single note, whose message says what to do; that is
    printed without a traceback.

    Parameters
    ----------
    arguments : sequence of str, optional
        Arguments; by default those of the process.

    Examples
    --------
    >>> main(["predict", "--model", "no/such", "--input", "a.txt", "--output", "out"])
    2
    """
    parsed = make_parser().parse_args(arguments)
    try:
        status: int = _COMMANDS[parsed.command].run(parsed)
    except _TOLD as error:
        print(f"medjax {parsed.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"medjax {parsed.command}: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return status


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands and their arguments."""
    parser = argparse.ArgumentParser(prog="python -m medjax", description=__doc__.split(",")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in _COMMANDS.items():
        summary, _, more = (module.__doc__ or "").partition("\n\n")
        escaped = summary.replace("%", "%%")  # as argparse formats help, but no description
        epilog = " ".join(more.replace("`", "").split())
        command = commands.add_parser(name, help=escaped, description=summary, epilog=epilog)
        module.add_arguments(command)
    return parser
