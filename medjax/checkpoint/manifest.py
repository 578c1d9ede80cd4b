"""The manifest of a checkpoint: size and SHA-256 of every file, written last and checked first.

Orbax 0.12 loads a flipped bit without an error; hashing 100 MB takes about 0.1 s.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from medjax.checkpoint.errors import CorruptCheckpointError

MANIFEST = "manifest.json"

UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, RecursionError),  # an infinite number overflows int()
)
"""What reading a damaged JSON file may raise."""

MAX_JSON = 256 * 2**20
"""Bytes of a JSON file above which it is neither written nor read."""


def read_json(path: Path) -> Any:
    """Return what a JSON file of a checkpoint holds; one of `UNREADABLE` if it is none."""
    if path.is_symlink() or not path.is_file():
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        content = file.read(MAX_JSON + 1)
    if len(content) > MAX_JSON:
        raise ValueError(f"it has more than {MAX_JSON >> 20} MiB")
    return json.loads(content.decode("utf-8"))


def write_json(path: Path, text: str) -> None:
    """Write a JSON file; ValueError if it is too large to be read again."""
    content = text.encode("utf-8")
    if len(content) > MAX_JSON:
        msg = (
            f"{path.name} would have {len(content) >> 20} MiB, more than the {MAX_JSON >> 20} that "
            "are read again; keep less in the metrics computer's columns and the callbacks' states"
        )
        raise ValueError(msg)
    path.write_bytes(content)


def _files(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}


def _strangers(folder: Path) -> dict[str, str]:
    """Return what is neither a file nor a folder, by name, with what it is."""
    found = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "symbolic link" if stat.S_ISLNK(mode) else "pipe, a socket or a device"
            found[path.relative_to(folder).as_posix()] = kind
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the manifest of the files in `folder` and force all of it to the disk.

    Raises
    ------
    ValueError
        If there is a symbolic link, a pipe or the like among them.
    """
    for name, kind in _strangers(folder).items():
        raise ValueError(f"{name} is a {kind}; save the file itself, which stays with it")
    files = _files(folder)
    entries = {name: [path.stat().st_size, _sha256(path)] for name, path in files.items()}
    write_json(folder / MANIFEST, json.dumps(entries, indent=1))
    for path in [*folder.rglob("*"), folder]:
        fsync(path)


def fsync(path: Path) -> None:
    """Force a file or folder to the disk."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and orders their entries by itself
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def verify(folder: Path, owned: tuple[str, ...] = ()) -> None:
    """Raise CorruptCheckpointError unless `folder` holds what its manifest says.

    Files may be added beside, a README for instance, but none whose name starts with one of
    `owned`: those that are read must all be listed. Names only say what is expected, they are never
    opened; and what is listed or owned is no symbolic link and no pipe, so that nothing outside is
    read and nothing is waited for.
    """
    try:
        entries = read_json(folder / MANIFEST)
        expected = {str(name): (int(size), str(digest)) for name, (size, digest) in entries.items()}
    except UNREADABLE as error:
        msg = f"{folder} has no readable {MANIFEST} ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error
    for name, kind in _strangers(folder).items():
        if name in expected or f"{name}/".startswith(owned):
            msg = f"{folder / name} is a {kind}; expected the file or folder that was saved"
            raise CorruptCheckpointError(msg)
    found = _files(folder)
    for name in found:
        if name not in expected and name.startswith(owned):
            raise CorruptCheckpointError(f"{folder / name} is not listed in {MANIFEST}")
    for name, (size, digest) in expected.items():
        if name not in found:
            raise CorruptCheckpointError(f"{folder} lacks the file {name}")
        try:
            found_size, found_digest = found[name].stat().st_size, _sha256(found[name])
        except OSError as error:
            raise CorruptCheckpointError(f"{folder / name} cannot be read ({error})") from error
        if found_size != size:
            msg = f"{folder / name} has {found_size} bytes; expected {size}"
            raise CorruptCheckpointError(msg)
        if found_digest != digest:
            raise CorruptCheckpointError(f"{folder / name} differs from what was saved (SHA-256)")
