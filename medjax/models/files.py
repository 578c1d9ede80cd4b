"""Files of a checkpoint, as they were downloaded or copied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_MAX_JSON = 64 * 2**20  # bytes; an index of shards has one
_POINTER = b"version https://git-lfs.github.com/spec/"


def check_downloaded(file: Path) -> None:
    """Refuse a file of which git has fetched the pointer only.

    Raises
    ------
    ValueError
        If the file is a pointer of Git Large File Storage.
    """
    with file.open("rb") as opened:
        if opened.read(len(_POINTER)) == _POINTER:
            msg = (
                f"{file} is a pointer of Git LFS and not the file itself; run git lfs pull in "
                f"{file.parent}, or download the checkpoint again"
            )
            raise ValueError(msg)


def check_ordinary(folder: Path) -> None:
    """Refuse a folder with a pipe, a socket or a device in it, which whoever opens may wait for.

    Raises
    ------
    ValueError
        If there is one; the message names it.
    """
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.exists() and not (path.is_file() or path.is_dir()):
            msg = (
                f"{path} is a pipe, a socket or a device; expected the files of a checkpoint only: "
                "remove it, or copy the checkpoint again"
            )
            raise ValueError(msg)


def read_json(file: Path) -> dict[str, Any]:
    """Read a file of a checkpoint that holds one JSON object.

    Parameters
    ----------
    file : Path
        The file.

    Raises
    ------
    ValueError
        If it does not exist or holds something else.
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
        msg = f"{file} holds a {type(content).__name__}; expected a JSON object"
        raise ValueError(msg)
    return content
