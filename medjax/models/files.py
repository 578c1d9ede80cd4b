"""Files of a checkpoint, as they were downloaded or copied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    if not file.is_file():
        msg = f"no {file.name} in {file.parent}; expected the folder of a Hugging Face checkpoint"
        raise ValueError(msg)
    check_downloaded(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{file} is not JSON ({error}); restore it from where the checkpoint came from"
        raise ValueError(msg) from error
    if not isinstance(content, dict):
        msg = f"{file} holds a {type(content).__name__}; expected a JSON object"
        raise ValueError(msg)
    return content
