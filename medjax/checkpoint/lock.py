"""The lock of an output folder: one run at a time writes into it.

It is the operating system's lock on an open file, which ends with the process however that ends,
so that no stale lock is left by a kill. The file goes when the lock is released.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import sys
from pathlib import Path

from medjax.checkpoint.errors import CheckpointError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

logger = logging.getLogger("medjax")

LOCK = ".lock"

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_FAR = 2**30  # Windows locks bytes, not files: one that is never read


class FolderLock:
    """The right to write into a folder.

    It holds between processes of one machine and, where the file system passes locks on (NFS
    does), of several.

    Parameters
    ----------
    folder : Path
        An existing folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise CheckpointError if another run has it.

        A file system without locks is told in a warning.
        """
        while True:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                _lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                if error.errno in _BUSY:
                    raise self._busy() from None
                logger.warning("%s cannot be locked (%s); keep to one run", self._path, error)
                self._path.unlink(missing_ok=True)
                return
            if self._is_at_its_path(descriptor):
                break
            os.close(descriptor)  # the holder before removed the file between open and lock
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # a full disk: the text is only for the message
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())

    def is_lost(self) -> bool:
        """Return whether the folder was deleted or replaced since the lock was taken."""
        return self._descriptor is not None and not self._is_at_its_path(self._descriptor)

    def release(self) -> None:
        """Give the lock back and remove its file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_at_its_path(descriptor):
                self._path.unlink()  # before the lock is free, or it could be another's
        os.close(descriptor)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self._path.unlink()  # Windows removes no open file, neither ours nor another's

    def _is_at_its_path(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def _busy(self) -> CheckpointError:
        holder = "another process"
        with contextlib.suppress(OSError):
            holder = self._path.read_text(encoding="utf-8", errors="replace")[:200] or holder
        return CheckpointError(
            f"{self._path.parent} is in use by another run ({holder}), and two runs cannot write "
            "into one output_dir. Give this run a folder of its own, or wait until the other ends"
        )


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
