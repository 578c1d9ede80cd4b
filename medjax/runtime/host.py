"""Cores and memory that this process may use: those of the machine, or of its container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import psutil

__all__ = ["Host", "host"]

_CGROUP = Path("/sys/fs/cgroup")  # version 2, as seen from within a container


class Host(NamedTuple):
    """What a process may use.

    Attributes
    ----------
    nb_cores : int
        Cores of the machine, hyper-threads included.
    nb_usable_cores : float
        Those that this process may run on, by its affinity and the quota of its container.
    memory : int
        Bytes of memory, of the machine or its container.
    free_memory : int
        Bytes that can be allocated without swapping.
    """

    nb_cores: int
    nb_usable_cores: float
    memory: int
    free_memory: int


def host(cgroup: Path = _CGROUP) -> Host:
    """Return what this process may use now.

    Parameters
    ----------
    cgroup : Path
        Folder with the limits of the container.

    Examples
    --------
    >>> 0 < host().nb_usable_cores <= host().nb_cores
    True
    """
    nb_cores = psutil.cpu_count() or 1
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else nb_cores
    quota = [float(nb_cores), float(affinity)]
    match _words_in(cgroup / "cpu.max"):
        case [limit, period] if limit.isdigit():
            quota.append(int(limit) / int(period))
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit_in, used_in = _words_in(cgroup / "memory.max"), _words_in(cgroup / "memory.current")
    match [*limit_in, *used_in]:
        case [limit, used] if limit.isdigit() and int(limit) < total:
            total, free = int(limit), min(free, max(0, int(limit) - int(used)))
    return Host(nb_cores, min(quota), total, free)


def _words_in(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
