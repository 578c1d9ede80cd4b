"""Saver: writes one checkpoint at a time, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from medjax import distributed
from medjax.checkpoint.arrays import ARRAYS, save_arrays
from medjax.checkpoint.errors import CheckpointError
from medjax.checkpoint.lock import FolderLock
from medjax.checkpoint.manifest import fsync, write_manifest
from medjax.checkpoint.space import bytes_in, bytes_of, give_back
from medjax.runtime import give_back_memory

__all__ = ["STAGING", "Saver"]

STAGING = ".saving-"
"""Prefix of the folder in which a checkpoint is written before it is complete."""

_PATIENCE = 20.0  # seconds for a save in flight when this process, of several, has failed


class Saver:
    """Writes one checkpoint at a time, in a thread of its own.

    Parameters
    ----------
    lock : FolderLock
        Lock of the output folder, confirmed before the folder is written to.
    after_commit : callable
        ``after_commit()`` is called in the first process once a checkpoint is complete.
    """

    def __init__(self, lock: FolderLock, after_commit: Callable[[], None]) -> None:
        self._lock = lock
        self._after_commit = after_commit
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, path: Path, state: Any, write_files: Callable[[Path], None]) -> None:
        """Start saving; return once the arrays of `state` may be changed or donated.

        Parameters
        ----------
        path : Path
            The checkpoint. It exists once `wait` returns.
        state : pytree
            Arrays.
        write_files : callable
            ``write_files(folder)`` writes everything but the arrays and the manifest.

        Raises
        ------
        CheckpointError
            If this save cannot start.
        """
        staging = path.with_name(STAGING + path.name)
        taken, claim = threading.Event(), threading.Lock()
        try:
            if jax.process_index() == 0:
                self._lock.confirm()
                staging.mkdir()
                write_files(staging)
            self._thread = threading.Thread(
                target=self._write,
                args=(path, staging, state, taken, claim),
                name="medjax-checkpoint",
            )
            self._thread.start()
            taken.wait()
        except BaseException as error:
            if not claim.acquire(blocking=False):
                raise  # the thread has begun to write, and `wait` waits for the thread
            self._thread = None
            failed = give_back(path, staging, bytes_of(state) + bytes_in(staging), error)
            if not isinstance(error, Exception):
                raise
            raise failed from error

    def _write(
        self,
        path: Path,
        staging: Path,
        state: Any,
        taken: threading.Event,
        claim: threading.Lock,
    ) -> None:
        # Orbax is only called in this thread: a Ctrl-C inside it would hang Python at its exit.
        if not claim.acquire(blocking=False):
            return  # a Ctrl-C came before this thread started, and the save was given up
        size = need = bytes_of(state)
        try:
            need += bytes_in(staging)
            try:
                wait_until_written = save_arrays(staging / ARRAYS, state)
            finally:
                del state
                taken.set()
            wait_until_written()
            if jax.process_index() == 0:
                write_manifest(staging)
                self._lock.confirm()
                staging.rename(path)  # the commit: before it the checkpoint does not exist
                fsync(path.parent)
                self._after_commit()
        except BaseException as error:
            lost = isinstance(error, Exception) and self._lost_folder()
            self._error = give_back(path, staging, need, lost or error)
            self._error.__cause__ = error
        give_back_memory(size)

    def _lost_folder(self) -> Exception | None:
        """Return an error if the folder is no longer the one that was opened, or no longer ours."""
        try:
            self._lock.confirm()
        except (OSError, CheckpointError) as error:
            return error
        return None

    def wait(self, *, alone: bool = False) -> None:
        """Wait for the save in flight, and raise its CheckpointError if it failed.

        Several processes wait together, so a checkpoint that is complete for one is complete for
        all. With `alone`, this process does not wait for the others, which may be gone.
        """
        if self._thread is None:
            return
        if alone and jax.process_count() > 1:
            self._thread.join(_PATIENCE)
        else:
            self._thread.join()  # `wait` may be called again after an interruption
        if self._thread.is_alive():
            msg = f"a checkpoint was not complete after {_PATIENCE:g} s; all processes must save it"
            raise CheckpointError(msg)
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error
        if not alone:
            distributed.exchange("saved")
