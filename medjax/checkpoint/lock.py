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
import stat
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
_NOT_THROUGH = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_SIGNATURE = b"process "
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
        self._folder: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise CheckpointError if another run has it.

        A file system without locks is told in a warning. What stands in the place of the file and
        is no lock, a link for instance, is never followed nor written to: a CheckpointError too.
        """
        self._descriptor = self._taken()
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # Windows opens no folder, nor lets one be replaced
            # Open, so that no other folder can get its number while the lock is held.
            self._folder = os.open(self._path.parent, os.O_RDONLY)
        self._sign()

    def confirm(self) -> None:
        """Make sure that the lock still holds; taken again if only its file was removed.

        Raises
        ------
        FileNotFoundError
            If the folder was deleted or replaced since the lock was taken.
        CheckpointError
            If its file was removed and another run has taken the lock since.
        """
        if self._descriptor is None or self._is_at_its_path(self._descriptor):
            return
        if self._folder is None or not _is_at(self._folder, self._path.parent):
            msg = f"{self._path.parent} was deleted or replaced during the run"
            raise FileNotFoundError(msg)
        again = self._taken()
        os.close(self._descriptor)
        self._descriptor = again
        self._sign()
        logger.warning("%s was removed during the run; it is there again", self._path)

    def _taken(self) -> int | None:
        """Return the descriptor of the locked file, None if the file system has no locks."""
        while True:
            descriptor = self._opened()
            try:
                _lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                if error.errno in _BUSY:
                    raise self._busy() from None
                logger.warning("%s cannot be locked (%s); keep to one run", self._path, error)
                self._path.unlink(missing_ok=True)
                return None
            if self._is_at_its_path(descriptor):
                return descriptor
            os.close(descriptor)  # the holder before removed the file between open and lock

    def _opened(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            self._check(self._path.lstat())  # before it is opened, which a device may mind
        flags = os.O_RDWR | os.O_CREAT | _NOT_THROUGH
        try:
            descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._foreign("a symbolic link") from error
        try:
            self._check(os.fstat(descriptor))
            start = os.read(descriptor, len(_SIGNATURE))
            if start and start != _SIGNATURE:
                raise self._foreign("a file of something else")
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check(self, status: os.stat_result) -> None:
        kinds = {
            stat.S_IFLNK: "a symbolic link",
            stat.S_IFDIR: "a folder",
            stat.S_IFIFO: "a named pipe",
            stat.S_IFSOCK: "a socket",
        }
        if not stat.S_ISREG(status.st_mode):
            raise self._foreign(kinds.get(stat.S_IFMT(status.st_mode), "a device"))
        if status.st_nlink > 1:
            raise self._foreign("a file with another name besides (a hard link)")

    def _foreign(self, found: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} is {found}; expected nothing, or the lock of a run. It was left as it "
            "is: remove it, or give another output_dir"
        )

    def _sign(self) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            return
        with contextlib.suppress(OSError):  # a full disk: the text is only for the message
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            text = f"{os.getpid()} on {socket.gethostname()}"
            os.write(descriptor, _SIGNATURE + text.encode())

    def release(self) -> None:
        """Give the lock back and remove its file."""
        descriptor, self._descriptor = self._descriptor, None
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)
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
        return _is_at(descriptor, self._path)

    def _busy(self) -> CheckpointError:
        holder = "another process"
        with contextlib.suppress(OSError):
            holder = self._path.read_text(encoding="utf-8", errors="replace")[:200] or holder
        return CheckpointError(
            f"{self._path.parent} is in use by another run ({holder}), and two runs cannot write "
            "into one output_dir. Give this run a folder of its own, or wait until the other ends"
        )


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
