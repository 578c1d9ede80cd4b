"""Choosing the checkpoint to resume from: verified, falling back to the previous one."""

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

__all__ = ["choose", "free_path"]

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
        "auto" takes the newest intact checkpoint in the folder: a damaged one is reported and set
        aside as ``corrupt_...``, and the previous one is taken instead. A path takes exactly that
        checkpoint or fails.

    Returns
    -------
    Path or None
        None if `resume` is "auto" and the folder has no checkpoints.

    Raises
    ------
    CorruptCheckpointError
        If the checkpoint, or every checkpoint in the folder, is damaged.
    MismatchError
        If it was written by a newer version of medjax.
    CheckpointError
        If `resume` is a path to no folder.
    """
    # Only process 0 reads and hashes; on a shared disk the others would repeat the same work.
    chosen = _choose(folder, resume) if jax.process_index() == 0 else None
    agreed = distributed.first_of("" if chosen is None else str(chosen))
    return Path(agreed) if agreed else None


def _choose(folder: Path, resume: str | Path) -> Path | None:
    if resume == "auto":
        return _newest_intact(folder)
    chosen = Path(resume).absolute()
    if not chosen.is_dir():
        raise CheckpointError(f"resume is {str(resume)!r}, but there is no such folder")
    verify(chosen, _OWNED)
    return chosen


def _newest_intact(folder: Path) -> Path | None:
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
            logger.warning("Resuming from the previous checkpoint, which is intact: %s", path)
        return path
    if damaged:
        reasons = "; ".join(str(reason) for _, reason in damaged)
        msg = f"every checkpoint in {folder} is damaged; nothing was changed: {reasons}"
        raise CorruptCheckpointError(msg)
    return None


def free_path(path: Path) -> Path:
    """Return the first of `path`, `path`-1, `path`-2, ... that does not exist.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     free_path(Path(name, "a")).name, free_path(Path(name)).name == Path(name).name + "-1"
    ('a', True)
    """
    candidate, number = path, 0
    while os.path.lexists(candidate):
        number += 1
        candidate = path.with_name(f"{path.name}-{number}")
    return candidate
