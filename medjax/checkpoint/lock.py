"""The lock of an output folder: only one run at a time writes to it.

It is the operating system's lock on an open file, which ends with the process, however that ends,
so a killed run leaves no stale lock. The file is removed when the lock is released.
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

__all__ = ["LOCK", "FolderLock", "holder_of"]

logger = logging.getLogger("medjax")

LOCK = ".lock"
"""Name of the lock file within the folder."""

_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
_NO_FOLLOW_NO_WAIT = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_SIGNATURE = b"process "
_UNKNOWN = "another process"
_UNREAD_BYTE = 2**30  # Windows locks bytes, not files: lock one that is never read


class FolderLock:
    """The exclusive right to write to a folder.

    The lock works between processes on one machine and, where the file system supports it (NFS
    does), across machines.

    Parameters
    ----------
    folder : Path
        An existing folder.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lock = FolderLock(Path(folder))
    ...     lock.acquire()
    ...     lock.release()
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._descriptor: int | None = None
        self._folder: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        If the file system has no locks, a warning says so. Anything else at the path of the lock
        file, such as a link, is neither followed nor written to.

        Raises
        ------
        CheckpointError
            If another run holds the lock, or something other than a lock file is at its path.
        """
        self._descriptor = self._lock_file()
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # Windows cannot open folders, nor replace a used one
            # Keep it open, so no other folder can get its inode number while the lock is held.
            self._folder = os.open(self._path.parent, os.O_RDONLY)
        self._sign()

    def confirm(self) -> None:
        """Check that the lock is still held, and take it again if only its file was removed.

        Raises
        ------
        FileNotFoundError
            If the folder was deleted or replaced since the lock was taken.
        CheckpointError
            If the file was removed and another run has taken the lock since.
        """
        if self._descriptor is None or self._is_at_its_path(self._descriptor):
            return
        if self._folder is None or not _is_at(self._folder, self._path.parent):
            msg = f"{self._path.parent} was deleted or replaced during the run"
            raise FileNotFoundError(msg)
        new_descriptor = self._lock_file()
        os.close(self._descriptor)
        self._descriptor = new_descriptor
        self._sign()
        logger.warning("%s was removed during the run; it has been created again", self._path)

    def _lock_file(self) -> int | None:
        """Return the descriptor of the locked file, or None if the file system has no locks."""
        while True:
            descriptor = self._open()
            try:
                _lock(descriptor)
            except OSError as error:
                os.close(descriptor)
                if error.errno in _BUSY:
                    raise self._busy() from None
                logger.warning(
                    "%s cannot be locked (%s); make sure that only one run writes there",
                    self._path,
                    error,
                )
                self._path.unlink(missing_ok=True)
                return None
            if self._is_at_its_path(descriptor):
                return descriptor
            os.close(descriptor)  # the previous holder removed the file between open and lock

    def _open(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            self._check(self._path.lstat())  # opening a device may have side effects
        flags = os.O_RDWR | os.O_CREAT | _NO_FOLLOW_NO_WAIT
        try:
            descriptor = os.open(self._path, flags, 0o666)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise self._not_a_lock("a symbolic link") from error
        try:
            self._check(os.fstat(descriptor))
            start = os.read(descriptor, len(_SIGNATURE))
            if start and start != _SIGNATURE:
                raise self._not_a_lock("a file that medjax did not write")
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
            raise self._not_a_lock(kinds.get(stat.S_IFMT(status.st_mode), "a device"))
        if status.st_nlink > 1:
            raise self._not_a_lock("a file with a second name (a hard link)")

    def _not_a_lock(self, kind: str) -> CheckpointError:
        return CheckpointError(
            f"{self._path} is {kind}; expected no file, or the lock of a run. It was not changed: "
            "remove it, or choose another output_dir"
        )

    def _sign(self) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            return
        with contextlib.suppress(OSError):  # the disk may be full; only a message needs the text
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            text = f"{os.getpid()} on {socket.gethostname()}"
            os.write(descriptor, _SIGNATURE + text.encode())

    def release(self) -> None:
        """Release the lock and remove its file."""
        descriptor, self._descriptor = self._descriptor, None
        folder, self._folder = self._folder, None
        if folder is not None:
            os.close(folder)
        if descriptor is None:
            return
        with contextlib.suppress(OSError):
            if self._is_at_its_path(descriptor):
                self._path.unlink()  # before unlocking: afterwards it could be another run's
        os.close(descriptor)
        if sys.platform == "win32":
            with contextlib.suppress(OSError):
                self._path.unlink()  # Windows removes no open file, ours or another run's

    def _is_at_its_path(self, descriptor: int) -> bool:
        return _is_at(descriptor, self._path)

    def _busy(self) -> CheckpointError:
        holder = _signed_by(self._path)
        return CheckpointError(
            f"{self._path.parent} is in use by another run ({holder}), and two runs cannot write "
            "to the same output_dir. Choose another output_dir, or wait until the other run ends"
        )


def holder_of(folder: Path) -> str | None:
    """Return who holds the lock of a folder, such as "process 71 on ward3", or None if nobody does.

    The lock is tried for an instant and nothing is written. A lock file that may not be opened is
    taken for a lock that is held.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     print(holder_of(Path(folder)))
    None
    """
    path = folder / LOCK
    if not path.is_file() or path.is_symlink():
        return None
    try:
        descriptor = os.open(path, os.O_RDWR | _NO_FOLLOW_NO_WAIT)
    except FileNotFoundError:
        return None
    except OSError as error:
        return f"another process, it seems: {path} cannot be opened ({error.strerror})"
    try:
        _lock(descriptor)
    except OSError as error:
        return _signed_by(path) if error.errno in _BUSY else None
    finally:
        os.close(descriptor)
    return None


def _signed_by(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")[:200] or _UNKNOWN
    return _UNKNOWN


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        return False


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _UNREAD_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
