"""The manifest of a checkpoint: size and SHA-256 of every file, written last and checked first.

Orbax 0.12 loads a flipped bit without an error; hashing 100 MB takes about 0.1 s.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from medjax.checkpoint.errors import CorruptCheckpointError

MANIFEST = "manifest.json"

UNREADABLE = (
    *(OSError, ValueError, TypeError, AttributeError),
    *(LookupError, ArithmeticError, RecursionError),  # an infinite number overflows int()
)
"""What reading a damaged JSON file may raise."""


def _files(folder: Path) -> dict[str, Path]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in files}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_manifest(folder: Path) -> None:
    """Write the manifest of the files in `folder` and force all of it to the disk."""
    files = _files(folder)
    entries = {name: [path.stat().st_size, _sha256(path)] for name, path in files.items()}
    (folder / MANIFEST).write_text(json.dumps(entries, indent=1), encoding="utf-8")
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
    `owned`: those that are read must all be listed.
    """
    try:
        entries = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected = {str(name): (int(size), str(digest)) for name, (size, digest) in entries.items()}
    except UNREADABLE as error:
        msg = f"{folder} has no readable {MANIFEST} ({type(error).__name__}: {error})"
        raise CorruptCheckpointError(msg) from error
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
