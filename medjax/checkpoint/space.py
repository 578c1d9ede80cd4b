"""What a checkpoint takes on the disk, what is free there, and a failed save put into words."""

from __future__ import annotations

import contextlib
import logging
import shutil
from pathlib import Path
from typing import Any

import jax

from medjax.checkpoint.errors import CheckpointError

logger = logging.getLogger("medjax")

_LONGEST = 300  # characters of a cause: TensorStore's run to pages


def bytes_of(tree: Any) -> int:
    """Return the bytes of all leaves of a tree of arrays, over all devices together."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


def bytes_in(folder: Path) -> int:
    """Return the bytes of the files in a folder, 0 if there is none; they may be vanishing."""
    total = 0
    with contextlib.suppress(OSError):
        for path in folder.rglob("*"):
            total += path.stat().st_size if path.is_file() else 0
    return total


def free_bytes(folder: Path) -> int | None:
    """Return the bytes that may still be written into a folder, None if the disk does not tell."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    return usage.free if usage.total else None


def give_back(path: Path, staging: Path, need: int, error: BaseException) -> CheckpointError:
    """Remove what a failed save has written, and return its error.

    Parameters
    ----------
    path : Path
        The checkpoint.
    staging : Path
        What was written of it.
    need : int
        Bytes it would have taken, as far as they are known.
    error : BaseException
        Why it failed.
    """
    if jax.process_index() == 0:  # the others only write their arrays into it
        shutil.rmtree(staging, ignore_errors=True)
    free = free_bytes(path.parent)
    cause = f"{type(error).__name__}: {error}"
    if len(cause) > _LONGEST:
        cause = f"{cause[:_LONGEST]} ..."
    rest = f" {staging} could not be removed." if staging.exists() else ""
    remedy = "free some space" if free is not None and free < need else "mend the cause"
    return CheckpointError(
        f"the checkpoint {path} could not be saved ({cause}). It needs about {megabytes(need)}; "
        f"{'an unknown number of MB' if free is None else megabytes(free)} are free there.{rest} "
        f"Earlier checkpoints are untouched: {remedy} and resume"
    )


def check_space(folder: Path, need: int, nb_saves: int, at_once: int | None) -> None:
    """Check that a folder has room for the checkpoints that a run is going to save.

    Parameters
    ----------
    folder : Path
        Where they will lie.
    need : int
        Bytes of one of them.
    nb_saves : int
        How many will be saved.
    at_once : int or None
        How many of them lie there at most, for others are deleted; None keeps them all.

    Raises
    ------
    CheckpointError
        If there is no room. Where all are kept, room for one is enough and less than for all is a
        warning: the run may end early.
    """
    free = free_bytes(folder)
    wanted = nb_saves if at_once is None else min(nb_saves, at_once)
    if free is None or free >= need * wanted:
        return
    room = (
        f"{folder} has {megabytes(free)} free, but a checkpoint of this run takes about "
        f"{megabytes(need)}, and {wanted} will lie there at once: {megabytes(need * wanted)}"
    )
    if at_once is None and free >= need:
        logger.warning("%s. Free some space, or do not keep all checkpoints", room)
        return
    raise CheckpointError(f"{room}. Free some space or give another output_dir")


def megabytes(number: int) -> str:
    """Return a number of bytes in MB, for messages."""
    return f"{number / 1e6:,.0f} MB" if number >= 10e6 else f"{number / 1e6:.1f} MB"
