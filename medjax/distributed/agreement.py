"""What must be the same in all processes, compared before training starts."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
from collections.abc import Mapping
from typing import Any

import jax

from medjax.distributed.exchange import exchange

__all__ = ["check_agreement", "versions"]

_LIBRARIES = ("medjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect numbers and files.

    Examples
    --------
    >>> versions()["jax"] == jax.__version__
    True
    """
    by_name = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            by_name[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a clone
            by_name[name] = "unknown"
    return by_name


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Check that all processes have the same facts; with one process, do nothing.

    Parameters
    ----------
    facts : mapping of str to Any
        Maps names to values, which are compared by their `repr`.

    Raises
    ------
    ValueError
        In every process, if a fact differs; the message names it and its value on each host.

    Examples
    --------
    >>> check_agreement({"seed": 7, "batch_size": 16})
    """
    if jax.process_count() == 1:
        return
    own = {"host": socket.gethostname(), "facts": {n: repr(value) for n, value in facts.items()}}
    reports = [json.loads(report) for report in exchange(json.dumps(own))]
    differing = []
    for name in dict.fromkeys(name for report in reports for name in report["facts"]):
        values = [report["facts"].get(name, "nothing") for report in reports]
        if len(set(values)) > 1:
            shown = ", ".join(
                f"{value} on process {process} ({reports[process]['host']})"
                for process, value in enumerate(values)
                if values.index(value) == process
            )
            differing.append(f"{name} is {shown}")
    if differing:
        msg = (
            f"the processes of this run differ: {'; '.join(differing)}. Start all of them with the "
            "same settings"
        )
        raise ValueError(msg)
