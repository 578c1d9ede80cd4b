"""CheckpointStore: saves, finds and restores the checkpoints of an output folder.

A checkpoint is written under a hidden name and renamed once everything is on the disk: its final
name exists if and only if it is complete. It holds ``trainer_config.yml``, the component's own
files, the arrays of the training state, a JSON record of everything else, and a manifest.
"""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml

from medjax import distributed
from medjax.checkpoint import retention
from medjax.checkpoint.arrays import (
    ARRAYS,
    check_spec,
    check_storable,
    load_arrays,
    save_arrays,
    tree_spec,
)
from medjax.checkpoint.errors import CheckpointError
from medjax.checkpoint.lock import FolderLock
from medjax.checkpoint.manifest import fsync, write_json, write_manifest
from medjax.checkpoint.records import FORMAT, RECORD, is_name, list_entries, read_record
from medjax.checkpoint.restore import choose, free_path
from medjax.checkpoint.retention import Entry
from medjax.checkpoint.space import bytes_in, bytes_of, check_space, give_back

logger = logging.getLogger("medjax")

CONFIG = "trainer_config.yml"

_PATIENCE = 20.0  # seconds for a save in flight when this process of several has failed
_STAGING, _TRASH = ".saving-", ".deleting-"


class Found(NamedTuple):
    """A checkpoint to resume from.

    Attributes
    ----------
    path : Path
        Its folder.
    record : dict
        Everything of it but the arrays.
    """

    path: Path
    record: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one run in one folder. Use it in a ``with`` statement.

    The folder is locked meanwhile: a second run that wants to write into it is refused, with a
    CheckpointError. Of several processes of one run the first holds the lock.

    Parameters
    ----------
    folder : str or Path
        Output folder; made when missing.
    run : str
        Identifies the run; only its own checkpoints are ever deleted.
    metric : str
        Name of the metric that makes a checkpoint the best. One that was saved under another is
        compared by its stored evaluation.
    minimize : bool
        Whether a lower metric is better.
    keep_all : bool
        Whether superseded checkpoints are kept.

    Attributes
    ----------
    resumed : Path or None
        The checkpoint that `restore` read.
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
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._lock = FolderLock(self.folder)
        self._serial = 0

    def __enter__(self) -> CheckpointStore:
        _in_first_process(self._open)
        newest = retention.last(list_entries(self.folder)) if self.folder.is_dir() else None
        self._serial = newest.serial if newest else 0
        return self

    def _open(self) -> None:
        """Make and lock the folder, then remove what a killed run left half done."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            msg = f"{self.folder} cannot be written into ({error}); give another output_dir"
            raise CheckpointError(msg) from error
        for name in (_STAGING, _TRASH):
            for leftover in self.folder.glob(f"{name}*"):
                if is_name(leftover.name.removeprefix(name)):
                    shutil.rmtree(leftover, ignore_errors=True)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # A save in flight must end: Orbax would hang the interpreter or drop it at exit.
        try:
            self.wait(alone=error is not None)
        except CheckpointError as failed:
            if error is None:
                raise
            error.add_note(f"besides, {failed}")
            if not isinstance(error, Exception):
                logger.error("%s", failed)  # nobody prints the notes of SystemExit
        finally:
            self._lock.release()

    def check_space(self, need: int, nb_saves: int, *, has_best: bool) -> None:
        """Check that there is room for what is going to be saved.

        Parameters
        ----------
        need : int
            Bytes of one checkpoint.
        nb_saves : int
            Checkpoints still to be saved.
        has_best : bool
            Whether the best is kept beside the last.

        Raises
        ------
        CheckpointError
            If there is not; see `medjax.checkpoint.space`.
        """

        def check() -> None:
            # The best, the last and the next one, while that is written.
            at_once = max(1, (3 if has_best else 2) - len(self.entries()))
            check_space(self.folder, need, nb_saves, None if self._keep_all else at_once)

        if nb_saves > 0:
            _in_first_process(check)

    def entries(self) -> list[Entry]:
        """Return the complete checkpoints of this run, in the order they were saved.

        A copy that somebody made of one is not among them, so it is never deleted.
        """
        found = list_entries(self.folder, self._metric)
        return [entry for entry in found if entry.run == self.run and not entry.copied]

    @property
    def best(self) -> Path | None:
        """Folder of the best checkpoint of this run."""
        entry = retention.best(self.entries(), minimize=self._minimize)
        return entry and entry.path

    @property
    def last(self) -> Path | None:
        """Folder of the last checkpoint of this run."""
        entry = retention.last(self.entries())
        return entry and entry.path

    def new_path(self, epoch: int, batch: int = 0) -> Path:
        """Return the folder the next checkpoint will have: epoch, batch within it and time, UTC.

        Parameters
        ----------
        epoch : int
            The epoch from 1.
        batch : int
            Batches done of it; 0 if it is complete.
        """
        self.wait()
        now = datetime.datetime.now(datetime.UTC)
        within = f"_batch_{batch}" if batch else ""
        path = free_path(self.folder / f"checkpoint_{epoch:03d}{within}_{now:%Y%m%dT%H%M%SZ}")
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
        """Save a checkpoint; it is complete when `wait` returns.

        Parameters
        ----------
        path : Path
            From `new_path`.
        state : pytree
            Arrays; they are copied before this returns.
        progress : dict
            Everything else a resumed run needs, for JSON.
        metric : float or None
            Value of the checkpoint metric.
        config : dict
            Contents of ``trainer_config.yml``.
        write_files : callable
            Writes the component's own files into the folder it is given.
        block : bool
            Whether to wait until it is complete.

        Raises
        ------
        CheckpointError
            If this save cannot start or, from `wait` or the next save, if it failed. What a
            failed save wrote is removed; earlier checkpoints are untouched.
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
            "versions": _versions(),
            "spec": tree_spec(state),
            "progress": progress,
        }
        staging = path.with_name(_STAGING + path.name)
        copied, claim = threading.Event(), threading.Lock()
        try:
            if jax.process_index() == 0:
                self._lock.confirm()
                staging.mkdir()
                text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
                (staging / CONFIG).write_text(text, encoding="utf-8")
                payload = json.dumps(record, indent=1, default=_plain)
                write_json(staging / RECORD, payload)
                write_files(staging)
            self._thread = threading.Thread(
                target=self._write,
                args=(path, staging, state, copied, claim),
                name="medjax-checkpoint",
            )
            self._thread.start()
            copied.wait()
        except BaseException as error:
            if not claim.acquire(blocking=False):
                raise  # the thread is at work on it, and `wait` waits for the thread
            self._thread = None
            failed = give_back(path, staging, bytes_of(state) + bytes_in(staging), error)
            if not isinstance(error, Exception):
                raise
            raise failed from error
        if block:
            self.wait()

    def _write(
        self,
        path: Path,
        staging: Path,
        state: Any,
        copied: threading.Event,
        claim: threading.Lock,
    ) -> None:
        # In a thread from the start: a Ctrl-C within Orbax would hang the interpreter at its exit.
        if not claim.acquire(blocking=False):
            return  # a Ctrl-C came before this thread did, and the save was given up
        need = bytes_of(state)
        try:
            need += bytes_in(staging)
            try:
                written = save_arrays(staging / ARRAYS, state)
            finally:
                del state
                copied.set()
            written()
            if jax.process_index() == 0:
                write_manifest(staging)
                self._lock.confirm()
                staging.rename(path)  # the commit: before it the checkpoint does not exist
                fsync(self.folder)
                self._delete_superseded()
        except BaseException as error:
            gone = isinstance(error, Exception) and self._gone()
            self._error = give_back(path, staging, need, gone or error)
            self._error.__cause__ = error

    def _gone(self) -> Exception | None:
        """Return an error if the folder is no longer the one that was opened, or no longer ours."""
        try:
            self._lock.confirm()
        except (OSError, CheckpointError) as error:
            return error
        return None

    def _delete_superseded(self) -> None:
        """Delete what is neither best nor last; what fails is tried again at the next save."""
        doomed: object = f"what is superseded in {self.folder}"
        try:
            for entry in retention.superseded(
                self.entries(), minimize=self._minimize, keep_all=self._keep_all
            ):
                doomed = entry.path
                trash = free_path(entry.path.with_name(_TRASH + entry.path.name))
                entry.path.rename(trash)  # first, so that a half-deleted one is never listed
                shutil.rmtree(trash)
        except OSError as error:
            logger.warning("%s cannot be deleted: %s", doomed, error)

    def wait(self, *, alone: bool = False) -> None:
        """Wait for the save in flight; raise its CheckpointError if it failed.

        With several processes all wait for it together, so that what is complete for one is
        complete for all; with `alone` this one does not wait for the others, which may be gone.
        """
        if self._thread is None:
            return
        if alone and jax.process_count() > 1:
            self._thread.join(_PATIENCE)
        else:
            self._thread.join()  # an interrupted wait may be repeated
        if self._thread.is_alive():
            msg = f"a checkpoint was not complete after {_PATIENCE:g} s; it needs all processes"
            raise CheckpointError(msg)
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        if not alone:
            distributed.exchange("saved")

    def find(self, resume: str | Path) -> Found | None:
        """Return the checkpoint to resume from; see `medjax.checkpoint.restore.choose`."""
        chosen = choose(self.folder, resume)
        return None if chosen is None else Found(chosen, read_record(chosen))

    def load(self, found: Found, state: Any, shardings: Any) -> Any:
        """Return the state of a checkpoint, with shapes and types of `state`.

        A run that goes on from its newest checkpoint keeps its identity; from an older one, or
        one of another folder, a new run branches off and the old one's checkpoints stay.

        Raises
        ------
        MismatchError
            If the checkpoint holds other arrays than `state`.
        CorruptCheckpointError
            If they cannot be read.
        """
        path, record = found
        check_spec(record["spec"], tree_spec(state), path)
        restored = load_arrays(path / ARRAYS, state, shardings)
        newest = retention.last([e for e in list_entries(self.folder) if e.run == record["run"]])
        if newest is not None and newest.path == path:
            self.run = record["run"]
            if jax.process_index() == 0:
                self._delete_superseded()  # what a kill after the last commit left
        self.resumed = path
        return restored

    def restore(
        self, resume: str | Path, state: Any, shardings: Any
    ) -> tuple[Any, dict[str, Any]] | None:
        """Return the state and progress of a checkpoint, as `find` and `load` do."""
        found = self.find(resume)
        if found is None:
            return None
        return self.load(found, state, shardings), found.record["progress"]


def _in_first_process(check: Callable[[], None]) -> None:
    """Run `check` in the first process; the CheckpointError it raises is raised in all of them."""
    failed: CheckpointError | None = None
    if jax.process_index() == 0:
        try:
            check()
        except CheckpointError as error:
            failed = error
    told = distributed.first_of("" if failed is None else str(failed))
    if told and failed is None:
        failed = CheckpointError(told)
    if failed is not None:
        raise failed


def _versions() -> dict[str, Any]:
    return {
        "jax": jax.__version__,
        "numpy": np.__version__,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "platform": jax.default_backend(),
    }


def _plain(value: Any) -> Any:
    """Turn what JSON cannot hold but metrics often are, numpy and JAX values, into plain ones."""
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    msg = f"{value!r} of type {type(value).__name__} cannot be stored as JSON"
    raise TypeError(msg)
