"""Check and read the files of a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["check_downloaded", "check_ordinary", "read_json"]

_MAX_JSON = 64 * 2**20  # bytes; the index of a large sharded checkpoint has about 1 MiB
_POINTER = b"version https://git-lfs.github.com/spec/"


def check_downloaded(file: Path) -> None:
    """Raise ValueError if a file is only a Git LFS pointer to the actual file."""
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            msg = (
                f"{file} is a Git LFS pointer instead of the file itself; run git lfs pull in "
                f"{file.parent}, or download the checkpoint again"
            )
            raise ValueError(msg)


def check_ordinary(folder: Path) -> None:
    """Raise ValueError if a folder contains a pipe, socket or device, as opening it may block."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            msg = (
                f"{path} is a pipe, a socket or a device; expected only the files of a checkpoint: "
                "remove it, or copy the checkpoint again"
            )
            raise ValueError(msg)


def read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint.

    Parameters
    ----------
    file : Path
        The file.

    Raises
    ------
    ValueError
        If the file does not exist or contains anything else.
    """
    check_ordinary(file.parent)
    if not file.is_file():
        msg = f"no {file.name} in {file.parent}; expected the folder of a Hugging Face checkpoint"
        raise ValueError(msg)
    check_downloaded(file)
    if file.stat().st_size > _MAX_JSON:
        msg = f"{file} has more than {_MAX_JSON >> 20} MiB; copy the checkpoint again"
        raise ValueError(msg)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{file} is not JSON ({error}); restore it from where the checkpoint came from"
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"{file} contains a {type(content).__name__}; expected a JSON object"
        raise ValueError(msg)
    return content
