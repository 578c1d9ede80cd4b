"""Train and resume where unpickling a class or opening a socket is an error:
``python tests/faults/guarded.py medjax FOLDER``, or ``medjax_torch``.

There are no worker processes, since they get the dataset from their parent as a pickle. Only
Python code is audited, not native code.
"""

from __future__ import annotations

import importlib
import socket
import sys
from pathlib import Path
from typing import Any


class ForbiddenError(BaseException):
    """A forbidden action; no ``except Exception`` in between catches it."""


def forbid(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse what would run code from a file, or reach another machine."""
    if event == "pickle.find_class":
        raise ForbiddenError(f"{event} {arguments}")
    # The event loop that writes checkpoints wakes itself by a pair of local sockets.
    if event == "socket.__new__" and arguments[1] == getattr(socket, "AF_UNIX", None):
        return
    if event.startswith("socket.") and event != "socket.gethostname":
        raise ForbiddenError(f"{event} {arguments}")


def main(door: str, folder: Path) -> None:
    sys.addaudithook(forbid)
    from breaking import At, DiedError, die
    from kill import JOBS

    job = importlib.import_module(JOBS[door])
    wanted = job.complete(folder / "whole")
    try:
        job.complete(folder / "cut", callback=At(2, 7, "train", die))
    except DiedError:
        assert job.complete(folder / "cut") == wanted
        print("resumed")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
