"""CheckpointStore: saves, finds and restores the checkpoints of an output folder.

A checkpoint is written under a hidden name and renamed once everything is on disk: its final name
exists if and only if it is complete. It holds ``trainer_config.yml``, the component's own files,
the arrays of the training state, a JSON record of everything else, and a manifest.
"""

from __future__ import annotations

import datetime
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import yaml

from medjax import distributed
from medjax.checkpoint import retention
from medjax.checkpoint.arrays import (
    ARRAYS,
    check_spec,
    check_storable,
    load_arrays,
    tree_spec,
)
from medjax.checkpoint.errors import CheckpointError
from medjax.checkpoint.lock import FolderLock
from medjax.checkpoint.manifest import MANIFEST, check_free
from medjax.checkpoint.records import (
    FORMAT,
    RECORD,
    is_name,
    list_entries,
    read_record,
    versions,
    write_record,
)
from medjax.checkpoint.restore import choose, forget_damaged, free_path
from medjax.checkpoint.retention import CheckpointEntry
from medjax.checkpoint.saver import STAGING, Saver
from medjax.checkpoint.space import check_space

__all__ = ["CONFIG", "CheckpointStore", "ResumePoint"]

logger = logging.getLogger("medjax")

CONFIG = "trainer_config.yml"
"""Name of the file with the trainer's configuration within a checkpoint."""

_TRASH = ".deleting-"  # prefix of a checkpoint that is being deleted


class ResumePoint(NamedTuple):
    """A checkpoint to resume from.

    Attributes
    ----------
    path : Path
        Its folder.
    record : dict
        Everything in it but the arrays.
    """

    path: Path
    record: dict[str, Any]


class CheckpointStore:
    """Saves and restores the checkpoints of one run in one folder. Use it in a ``with`` statement.

    Within the block the folder is locked: a second run that wants to write to it is refused with a
    CheckpointError. If a run has several processes, the first holds the lock.

    Parameters
    ----------
    folder : str or Path
        Output folder; created if missing.
    run : str
        Identifies the run; only its own checkpoints are ever deleted.
    metric : str
        Name of the metric that decides which checkpoint is the best. A checkpoint that was saved
        with another metric is compared by its stored evaluation.
    minimize : bool
        Whether a lower metric is better.
    keep_all : bool
        Whether superseded checkpoints are kept.

    Attributes
    ----------
    resumed : Path or None
        The checkpoint that `load` or `restore` has read.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> state = {"kernel": np.ones((2, 3), np.float32)}
    >>> def write_files(folder):
    ...     (folder / "labels.txt").write_text("drug")
    >>> with tempfile.TemporaryDirectory() as folder, CheckpointStore(folder, "run 1") as store:
    ...     path = store.new_path(epoch=1)
    ...     store.save(
    ...         path, state, {"epoch": 2}, metric=0.5, config={}, write_files=write_files
    ...     )
    ...     store.wait()
    ...     store.best == store.last == path
    True
    """

    def __init__(
        self,
        folder: str | Path,
        run: str,
        *,
        metric: str = "loss",
        minimize: bool = True,
        keep_all: bool = False,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.run = run
        self.resumed: Path | None = None
        self._metric = metric
        self._minimize = minimize
        self._keep_all = keep_all
        self._lock = FolderLock(self.folder)
        self._saver = Saver(self._lock, self._delete_superseded)
        self._serial = 0

    def __enter__(self) -> CheckpointStore:
        _in_first_process(self._open)
        newest = retention.last(list_entries(self.folder)) if self.folder.is_dir() else None
        self._serial = newest.serial if newest else 0
        return self

    def _open(self) -> None:
        """Create and lock the folder, then remove what a killed run left unfinished."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            msg = f"{self.folder} cannot be written to ({error}); choose another output_dir"
            raise CheckpointError(msg) from error
        for name in (STAGING, _TRASH):
            for leftover in self.folder.glob(f"{name}*"):
                if is_name(leftover.name.removeprefix(name)):
                    shutil.rmtree(leftover, ignore_errors=True)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # Wait for a save in flight: at exit Orbax would drop it, or hang the interpreter.
        try:
            self.wait(alone=error is not None)
        except CheckpointError as failed:
            if error is None:
                raise
            error.add_note(f"in addition, {failed}")
            if not isinstance(error, Exception):
                logger.error("%s", failed)  # Python does not print the notes of a SystemExit
        finally:
            self._lock.release()

    def check_space(self, need: int, nb_saves: int, *, has_best: bool) -> None:
        """Check that there is room for the checkpoints still to be saved.

        Parameters
        ----------
        need : int
            Size in bytes of one checkpoint.
        nb_saves : int
            How many checkpoints are still to be saved.
        has_best : bool
            Whether the best is kept in addition to the last.

        Raises
        ------
        CheckpointError
            If there is too little.
        """

        def check() -> None:
            # The best, the last, and the next one while it is being written.
            at_once = max(1, (3 if has_best else 2) - len(self.entries()))
            check_space(self.folder, need, nb_saves, None if self._keep_all else at_once)

        if nb_saves > 0:
            _in_first_process(check)

    def entries(self) -> list[CheckpointEntry]:
        """Return the complete checkpoints of this run, in the order they were saved.

        Copies that somebody made are left out, so they are never deleted. Those that were
        evaluated on other data than the last have no metric.
        """
        entries = list_entries(self.folder, self._metric)
        own = [entry for entry in entries if entry.run == self.run and not entry.copied]
        return retention.comparable(own)

    @property
    def best(self) -> Path | None:
        """Folder of the best checkpoint of this run, or None."""
        entry = retention.best(self.entries(), minimize=self._minimize)
        return entry and entry.path

    @property
    def last(self) -> Path | None:
        """Folder of the last checkpoint of this run, or None."""
        entry = retention.last(self.entries())
        return entry and entry.path

    def new_path(self, epoch: int, batch: int = 0) -> Path:
        """Return the folder for the next checkpoint, named by epoch, batch within it and UTC time.

        Parameters
        ----------
        epoch : int
            The epoch, counted from 1.
        batch : int
            How many of its batches are done; 0 if the epoch is complete.
        """
        self.wait()
        time = datetime.datetime.now(datetime.UTC)
        within = f"_batch_{batch}" if batch else ""
        path = free_path(self.folder / f"checkpoint_{epoch:03d}{within}_{time:%Y%m%dT%H%M%SZ}")
        return path.with_name(distributed.first_of(path.name))

    def save(
        self,
        path: Path,
        state: Any,
        progress: dict[str, Any],
        *,
        metric: float | None,
        config: dict[str, Any],
        write_files: Callable[[Path], None],
        block: bool = False,
    ) -> None:
        """Start saving a checkpoint; it is complete once `wait` returns.

        Parameters
        ----------
        path : Path
            From `new_path`.
        state : pytree
            Arrays; they may be changed or donated as soon as this returns.
        progress : dict
            Everything else a resumed run needs, ready for JSON.
        metric : float or None
            Value of the checkpoint metric.
        config : dict
            Contents of ``trainer_config.yml``.
        write_files : callable
            ``write_files(folder)`` writes the component's own files to a folder. It may use any
            names but those that the store writes: ``trainer_config.yml``, ``manifest.json``,
            ``training_state.json`` and ``training_state``.
        block : bool
            Whether to wait until the checkpoint is complete.

        Raises
        ------
        CheckpointError
            If this save cannot start. If it fails later, `wait` or the next save raises the error.
            What a failed save wrote is removed; earlier checkpoints are unchanged.
        """
        check_storable(state)
        self.wait()
        self._serial += 1
        record = {
            "format": FORMAT,
            "run": self.run,
            "name": path.name,
            "serial": self._serial,
            "metric": metric,
            "metric_name": self._metric,
            "minimize": self._minimize,
            "versions": versions(),
            "spec": tree_spec(state),
            "progress": progress,
        }

        def write(folder: Path) -> None:
            write_files(folder)  # first, while the folder has none of the names it must leave free
            check_free(folder, (CONFIG, MANIFEST, RECORD, ARRAYS))
            text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
            (folder / CONFIG).write_text(text, encoding="utf-8")
            write_record(folder, record)

        self._saver.start(path, state, write)
        if block:
            self.wait()

    def _delete_superseded(self) -> None:
        """Delete what is neither best nor last; a failed deletion is retried at the next save."""
        doomed: object = f"superseded checkpoints in {self.folder}"
        try:
            for entry in retention.superseded(
                self.entries(), minimize=self._minimize, keep_all=self._keep_all
            ):
                doomed = entry.path
                trash = free_path(entry.path.with_name(_TRASH + entry.path.name))
                entry.path.rename(trash)  # first, so a half-deleted one is never listed
                shutil.rmtree(trash)
        except OSError as error:
            logger.warning("Cannot delete %s: %s", doomed, error)

    def wait(self, *, alone: bool = False) -> None:
        """Wait for the save in flight, and raise its CheckpointError if it failed.

        Several processes wait together, so a checkpoint that is complete for one is complete for
        all. With `alone`, this process does not wait for the others, which may be gone.
        """
        self._saver.wait(alone=alone)

    def find(self, resume: str | Path) -> ResumePoint | None:
        """Return the checkpoint to resume from, verified.

        Parameters
        ----------
        resume : "auto" or path
            "auto" takes the newest intact checkpoint in the folder and sets damaged ones aside; a
            path takes exactly that checkpoint or fails.

        Returns
        -------
        ResumePoint or None
            None if `resume` is "auto" and the folder has no checkpoints.

        Raises
        ------
        CheckpointError
            If the checkpoint, or every one in the folder, is damaged, or there is no such folder.
        """
        chosen = choose(self.folder, resume)
        return None if chosen is None else ResumePoint(chosen, read_record(chosen))

    def load(self, checkpoint: ResumePoint, state: Any, shardings: Any) -> Any:
        """Read the state of a checkpoint, with the shapes and dtypes of `state`.

        A run that resumes from its newest checkpoint keeps its identity. From an older checkpoint,
        or one in another folder, a new run branches off, and those of the old run are kept.

        Parameters
        ----------
        checkpoint : ResumePoint
            From `find`.
        state : pytree
            The expected arrays, or their shapes and dtypes.
        shardings : pytree
            A sharding for every leaf.

        Raises
        ------
        MismatchError
            If the checkpoint holds different arrays from those in `state`.
        CorruptCheckpointError
            If they cannot be read.
        """
        path, record = checkpoint
        check_spec(record["spec"], tree_spec(state), path)
        restored = load_arrays(path / ARRAYS, state, shardings)
        newest = retention.last([e for e in list_entries(self.folder) if e.run == record["run"]])
        if newest is not None and newest.path == path:
            self.run = record["run"]
            if jax.process_index() == 0:
                forget_damaged(lambda: self.best, path)
                self._delete_superseded()  # a killed run may have left some
        self.resumed = path
        return restored

    def restore(
        self, resume: str | Path, state: Any, shardings: Any
    ) -> tuple[Any, dict[str, Any]] | None:
        """Return the state and progress of the checkpoint that `find` returns, or None."""
        checkpoint = self.find(resume)
        if checkpoint is None:
            return None
        return self.load(checkpoint, state, shardings), checkpoint.record["progress"]


def _in_first_process(check: Callable[[], None]) -> None:
    """Run `check` in the first process; if it raises a CheckpointError, raise it in all of them."""
    failed: CheckpointError | None = None
    if jax.process_index() == 0:
        try:
            check()
        except CheckpointError as error:
            failed = error
    message = distributed.first_of("" if failed is None else str(failed))
    if message and failed is None:
        failed = CheckpointError(message)
    if failed is not None:
        raise failed
