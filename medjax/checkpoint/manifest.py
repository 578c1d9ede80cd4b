"""The manifest of a checkpoint: size and SHA-256 of every file, written last and checked first.

Orbax 0.12 loads arrays with flipped bits without an error. Hashing 100 MB takes about 0.1 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from medjax.checkpoint.errors import CorruptCheckpointError

__all__ = [
    "MANIFEST",
    "MAX_JSON",
    "UNREADABLE",
    "check_free",
    "damages",
    "fsync",
    "read_json",
    "verify",
    "write_json",
    "write_manifest",
]

MANIFEST = "manifest.json"

UNREADABLE = (
    OSError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,  # int() of an infinite number
    RecursionError,
)
"""What reading a damaged JSON file may raise."""

MAX_JSON = 256 * 2**20
"""Size in bytes above which a JSON file is neither written nor read."""


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file; raise one of `UNREADABLE` if it cannot be read."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is not a regular file")
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"it has more than {MAX_JSON >> 20} MiB")
    return json.loads(content.decode("utf-8"))


def write_json(path: Path, text: str) -> None:
    """Write a JSON file; raise ValueError if it is too large to be read again."""
    content = text.encode("utf-8")
    if len(content) > MAX_JSON:
        msg = (
            f"{path.name} would take {len(content) >> 20} MiB, more than the {MAX_JSON >> 20} MiB "
            "that can be read back; keep less in the columns of the metrics computer and the "
            "states of the callbacks"
        )
        raise ValueError(msg)
    path.write_bytes(content)


def _files(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}


def _special_files(folder: Path) -> dict[str, str]:
    """Return the kind of everything that is neither a file nor a folder, by name."""
    kinds = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "symbolic link" if stat.S_ISLNK(mode) else "pipe, a socket or a device"
            kinds[path.relative_to(folder).as_posix()] = kind
    return kinds


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the manifest of the files in `folder` and flush everything to the disk.

    Raises
    ------
    ValueError
        If the folder contains a symbolic link, a pipe or the like.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as name:
    ...     _ = Path(name, "weights.bin").write_bytes(b"abc")
    ...     write_manifest(Path(name))
    ...     verify(Path(name))
    """
    for name, kind in _special_files(folder).items():
        raise ValueError(f"{name} is a {kind}; save the file itself in the checkpoint")
    files = _files(folder)
    entries = {name: [path.stat().st_size, _sha256(path)] for name, path in files.items()}
    write_json(folder / MANIFEST, json.dumps(entries, indent=1))
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def check_free(folder: Path, names: Iterable[str]) -> None:
    """Raise ValueError if a component has taken one of the names of the store's own files.

    Examples
    --------
    >>> check_free(Path("."), [MANIFEST])
    """
    for name in names:
        if os.path.lexists(folder / name):
            msg = (
                f"the component has written {name!r}, the name of what medjax writes into a "
                "checkpoint; expected another name in its `save`"
            )
            raise ValueError(msg)


def fsync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and writes their entries in order by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path, owned: tuple[str, ...] = ()) -> None:
    """Raise CorruptCheckpointError unless `folder` holds what its manifest says; see `damages`."""
    for damage in damages(folder, owned):
        raise CorruptCheckpointError(damage)


def damages(folder: Path, owned: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield in words how `folder` differs from what its manifest says.

    Users may add files, a README for instance, but none whose name starts with one of `owned`:
    every file that medjax reads must be listed. Names from the manifest are only compared, never
    opened. Listed and owned files must not be symbolic links or pipes, so nothing outside the
    folder is read and nothing blocks.
    """
    try:
        entries = read_json(folder / MANIFEST)
        expected = {str(name): (int(size), str(digest)) for name, (size, digest) in entries.items()}
    except UNREADABLE as error:
        yield f"{folder} has no readable {MANIFEST} ({type(error).__name__}: {error})"
        return
    special = {
        name: kind
        for name, kind in _special_files(folder).items()
        if name in expected or f"{name}/".startswith(owned)
    }
    for name, kind in special.items():
        yield f"{folder / name} is a {kind}; expected the file or folder that was saved"
    files = _files(folder)
    for name in files:
        if name not in expected and name.startswith(owned):
            yield f"{folder / name} is not listed in {MANIFEST}"
    for name, (size, digest) in expected.items():
        if name in files and name not in special:
            yield from _differences(files[name], size, digest)
        elif name not in files:
            yield f"{folder} lacks the file {name}"


def _differences(file: Path, size: int, digest: str) -> Iterator[str]:
    try:
        actual_size, actual_digest = file.stat().st_size, _sha256(file)
    except OSError as error:
        yield f"{file} cannot be read ({error})"
        return
    if actual_size != size:
        yield f"{file} has {actual_size} bytes; expected {size}"
    elif actual_digest != digest:
        yield f"{file} differs from what was saved (SHA-256)"
