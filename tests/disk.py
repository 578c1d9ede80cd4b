"""Small disks that can be filled up and made read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def _mount(*arguments: str) -> bool:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True)
    return done.returncode == 0


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system in memory; skips the test where this is not permitted."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", f"size={megabytes}M", "tmpfs", str(folder)):
        pytest.skip("this machine does not permit mounting")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(disk: Path, mode: str) -> None:
    """Make a small disk read-only ("ro") or writable ("rw")."""
    assert _mount("-o", f"remount,{mode}", str(disk))


def fill(disk: Path) -> Path:
    """Take all that is free on a small disk with one file and return it."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    return filler
