"""Choosing the checkpoint to resume from: verified, with fallback to the one before."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import jax

from medjax import distributed
from medjax.checkpoint.arrays import ARRAYS
from medjax.checkpoint.errors import CheckpointError, CorruptCheckpointError
from medjax.checkpoint.manifest import verify
from medjax.checkpoint.records import RECORD, newest_first, read_record

logger = logging.getLogger("medjax")

_CORRUPT = "corrupt_"
_OWNED = (RECORD, f"{ARRAYS}/")


def choose(folder: Path, resume: str | Path) -> Path | None:
    """Return the checkpoint to resume from, verified.

    Parameters
    ----------
    folder : Path
        Output folder.
    resume : "auto" or path
        "auto" takes the newest sound checkpoint of the folder: a damaged one is reported, set
        aside under the name ``corrupt_...`` and the one before it is taken. A path takes that
        checkpoint or fails.

    Returns
    -------
    Path or None
        None if "auto" finds a folder without checkpoints.

    Raises
    ------
    CorruptCheckpointError
        If the checkpoint, or every one of the folder, is damaged.
    MismatchError
        If a newer version of medjax wrote it.
    CheckpointError
        If there is no such folder.
    """
    # Process 0 alone reads and hashes; on a shared disk the others would do the same again.
    chosen = _choose(folder, resume) if jax.process_index() == 0 else None
    agreed = distributed.first_of("" if chosen is None else str(chosen))
    return Path(agreed) if agreed else None


def _choose(folder: Path, resume: str | Path) -> Path | None:
    if resume == "auto":
        return _newest_sound(folder)
    chosen = Path(resume).absolute()
    if not chosen.is_dir():
        raise CheckpointError(f"resume is {str(resume)!r}, but there is no such folder")
    verify(chosen, _OWNED)
    return chosen


def _newest_sound(folder: Path) -> Path | None:
    damaged: list[tuple[Path, CorruptCheckpointError]] = []
    for path in newest_first(folder):
        try:
            read_record(path)
            verify(path, _OWNED)
        except CorruptCheckpointError as error:
            damaged.append((path, error))
            continue
        for bad, reason in damaged:
            aside = free_path(bad.with_name(_CORRUPT + bad.name))
            bad.rename(aside)
            logger.warning("%s; set aside as %s", reason, aside.name)
        if damaged:
            logger.warning("The checkpoint before is sound and taken instead: %s", path)
        return path
    if damaged:
        reasons = "; ".join(str(reason) for _, reason in damaged)
        msg = f"no checkpoint in {folder} is sound; nothing was changed: {reasons}"
        raise CorruptCheckpointError(msg)
    return None


def free_path(path: Path) -> Path:
    """Return `path`, or the first of `path`-1, `path`-2, ... that does not exist."""
    taken, number = path, 0
    while os.path.lexists(taken):
        number += 1
        taken = path.with_name(f"{path.name}-{number}")
    return taken
