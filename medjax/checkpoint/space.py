"""How much disk space a checkpoint takes, how much is free, and what a failed save reports."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoint.errors import CheckpointError

__all__ = ["bytes_in", "bytes_of", "check_space", "free_bytes", "give_back", "megabytes"]

logger = logging.getLogger("medjax")

_LONGEST = 300  # characters of a cause: TensorStore's messages can run to pages
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def bytes_of(tree: Any) -> int:
    """Return the size in bytes of all leaves of a tree of arrays, over all devices together.

    Examples
    --------
    >>> import numpy as np
    >>> bytes_of({"kernel": np.zeros((2, 3), np.float32)})
    24
    """
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def bytes_in(folder: Path) -> int:
    """Return the total size in bytes of the files in a folder, some of which may be vanishing."""
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            total += path.stat().st_size if path.is_file() else 0
    return total


def free_bytes(folder: Path) -> int | None:
    """Return how many bytes can still be written to a folder, or None if the disk cannot say."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None


def give_back(path: Path, staging: Path, need: int, error: BaseException) -> CheckpointError:
    """Remove what a failed save has written, and return the error to raise.

    Parameters
    ----------
    path : Path
        The checkpoint that was to be saved.
    staging : Path
        Folder with the part that was written.
    need : int
        Size in bytes of the checkpoint, as far as it is known.
    error : BaseException
        Why the save failed.
    """
    if jax.process_index() == 0:  # the others only add their arrays to it
        shutil.rmtree(staging, ignore_errors=True)
    free = free_bytes(path.parent)
    cause = f"{type(error).__name__}: {error}"
    if len(cause) > _LONGEST:
        cause = f"{cause[:_LONGEST]} ..."
    rest = f" {staging} could not be removed." if staging.exists() else ""
    remedy, sizes = "fix the cause", ""
    if _is_of_space(error):
        remedy = "free some space" if free is not None and free < need else remedy
        sizes = (
            f" It needs about {megabytes(need)}; "
            f"{'an unknown number of MB' if free is None else megabytes(free)} are free there."
        )
    return CheckpointError(
        f"the checkpoint {path} could not be saved ({cause}).{sizes}{rest} "
        f"Earlier checkpoints are unchanged: {remedy} and resume"
    )


def _is_of_space(error: BaseException) -> bool:
    """Return whether an error says that the disk, or the user's share of it, is full."""
    said = str(error).lower()  # TensorStore raises a ValueError with the text of the system
    known = (os.strerror(number).lower() for number in _FULL)
    return (isinstance(error, OSError) and error.errno in _FULL) or any(t in said for t in known)


def check_space(folder: Path, need: int, nb_saves: int, at_once: int | None) -> None:
    """Check that a folder has room for the checkpoints that a run is going to save.

    Parameters
    ----------
    folder : Path
        Where they will be stored.
    need : int
        Size in bytes of one of them.
    nb_saves : int
        How many will be saved.
    at_once : int or None
        How many of them exist at the same time, as superseded ones are deleted; None if all are
        kept.

    Raises
    ------
    CheckpointError
        If there is too little room. If all checkpoints are kept, room for one is enough, and too
        little for all is only a warning: the run may end early.

    Examples
    --------
    >>> check_space(Path("."), need=1, nb_saves=3, at_once=2)
    """
    free = free_bytes(folder)
    wanted = nb_saves if at_once is None else min(nb_saves, at_once)
    if free is None or free >= need * wanted:
        return
    room = (
        f"{folder} has {megabytes(free)} free, but a checkpoint of this run takes about "
        f"{megabytes(need)}, and {wanted} will be stored there at once: {megabytes(need * wanted)}"
    )
    if at_once is None and free >= need:
        logger.warning("%s. Free some space, or do not keep all checkpoints", room)
        return
    raise CheckpointError(f"{room}. Free some space or choose another output_dir")


def megabytes(number: int) -> str:
    """Return a number of bytes in MB, for messages.

    Examples
    --------
    >>> megabytes(25_000_000), megabytes(1_234_567)
    ('25 MB', '1.2 MB')
    """
    return f"{number / 1e6:,.0f} MB" if number >= 10e6 else f"{number / 1e6:.1f} MB"
