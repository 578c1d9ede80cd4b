"""What must be the same in all processes, compared before anything is trained."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import socket
from collections.abc import Mapping
from typing import Any

import jax

from medjax.distributed.exchange import exchange

_LIBRARIES = ("medjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide about numbers and files."""
    found = {"Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a clone
            found[name] = "unknown"
    return found


def check_agreement(facts: Mapping[str, Any]) -> None:
    """Compare facts across processes; with one process, do nothing.

    Parameters
    ----------
    facts : mapping of str to Any
        Name to value; values are compared by their `repr`.

    Raises
    ------
    ValueError
        If a fact differs, in every process; the message names it with the value on each host.
    """
    if jax.process_count() == 1:
        return
    own = {"host": socket.gethostname(), "facts": {n: repr(value) for n, value in facts.items()}}
    everyone = [json.loads(said) for said in exchange(json.dumps(own))]
    differing = []
    for name in dict.fromkeys(name for said in everyone for name in said["facts"]):
        values = [said["facts"].get(name, "nothing") for said in everyone]
        if len(set(values)) > 1:
            shown = ", ".join(
                f"{value} on process {process} ({everyone[process]['host']})"
                for process, value in enumerate(values)
                if values.index(value) == process
            )
            differing.append(f"{name} is {shown}")
    if differing:
        msg = f"the processes of this run differ: {'; '.join(differing)}. Start all of them alike"
        raise ValueError(msg)
