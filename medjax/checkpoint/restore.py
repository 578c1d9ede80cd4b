"""Choosing the checkpoint to resume from: verified, falling back to the previous one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import jax

from medjax import distributed
from medjax.checkpoint.arrays import ARRAYS
from medjax.checkpoint.errors import CheckpointError, CorruptCheckpointError
from medjax.checkpoint.manifest import verify
from medjax.checkpoint.records import RECORD, newest_first, read_record

__all__ = ["CORRUPT", "OWNED", "choose", "forget_damaged", "free_path", "newest_intact"]

logger = logging.getLogger("medjax")

CORRUPT = "corrupt_"
"""Prefix of a damaged checkpoint that was set aside."""

OWNED = (RECORD, f"{ARRAYS}/")
"""What medjax itself reads in a checkpoint, so that the manifest must list it."""


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
    verify(chosen, OWNED)
    return chosen


def _newest_intact(folder: Path) -> Path | None:
    chosen, damaged = newest_intact(folder)
    if chosen is None:
        if not damaged:
            return None
        reasons = "; ".join(str(reason) for reason in damaged.values())
        msg = f"every checkpoint in {folder} is damaged; nothing was changed: {reasons}"
        raise CorruptCheckpointError(msg)
    for bad, reason in damaged.items():
        _set_aside(bad, reason)
    if damaged:
        logger.warning("Resuming from the previous checkpoint, which is intact: %s", chosen)
    return chosen


def _set_aside(bad: Path, reason: CorruptCheckpointError) -> None:
    aside = free_path(bad.with_name(CORRUPT + bad.name))
    bad.rename(aside)
    logger.warning("%s; set aside as %s", reason, aside.name)


def forget_damaged(best: Callable[[], Path | None], resumed: Path) -> None:
    """Set the best checkpoint of a run aside if it is damaged, and so on with the next best.

    Otherwise it would stay the best, and those beside it be deleted.

    Parameters
    ----------
    best : callable
        Returns the best of the checkpoints that are there, if any.
    resumed : Path
        The checkpoint that the run resumes from, which is verified already.
    """
    while (path := best()) not in (None, resumed):
        assert path is not None
        try:
            verify(path, OWNED)
        except CorruptCheckpointError as error:
            try:
                _set_aside(path, error)
            except OSError as failed:
                logger.warning("%s; it cannot be set aside (%s)", error, failed)
                return
            logger.warning(
                "%s was the best checkpoint; the best is one of the others from now on", path.name
            )
        else:
            return


def newest_intact(folder: Path) -> tuple[Path | None, dict[Path, CorruptCheckpointError]]:
    """Return the newest intact checkpoint in a folder, if any, and the damage of newer ones.

    Nothing is changed.

    Raises
    ------
    MismatchError
        If a checkpoint that would be chosen was written by a newer version of medjax.
    """
    damaged: dict[Path, CorruptCheckpointError] = {}
    for path in newest_first(folder):
        try:
            read_record(path)
            verify(path, OWNED)
        except CorruptCheckpointError as error:
            damaged[path] = error
        else:
            return path, damaged
    return None, damaged


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
