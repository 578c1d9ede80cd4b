"""Memory that a program frees, kept by the process for the next one: on the CPU, with glibc.

A program of XLA allocates what it works in when it starts and frees it when it ends. glibc gives
blocks of that size back to the kernel at once, which clears every page anew for the next step: an
eighth of a step of MiniLM in float32, a fifth in bfloat16. Told to keep them, it keeps those of the
main thread; in other threads a block above 64 MiB, ``HEAP_MAX_SIZE`` of its ``malloc/arena.c``,
always comes from the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

import jax

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # names of mallopt(3), from glibc's malloc.h
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}  # -1: nothing is given back, however much it is
# By default at most 2**16 blocks are mapped, and the threshold adapts itself up to 64 MiB.
_GIVE_BACK = {_MMAP_MAX: 2**16, _TRIM_THRESHOLD: 2**26}

_DISPATCH = "jax_cpu_enable_async_dispatch"

_open_blocks: list[None] = []  # one for each: the allocator is that of the whole process


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Keep memory that is freed until the block ends, for programs that run on the CPU.

    `train` and `evaluate` do so by themselves; a loop of your own over the steps goes into such a
    block, in the main thread, before JAX makes its first array. On accelerators, without glibc, or
    where the environment sets the allocator (``MALLOC_...``, ``GLIBC_TUNABLES``), nothing is
    changed.
    """
    run_in_calling_thread()
    library = _glibc() if jax.default_backend() == "cpu" else None
    if library is None:
        yield
        return
    _set(library, _KEEP)
    _open_blocks.append(None)
    try:
        yield
    finally:
        _open_blocks.pop()
        if not _open_blocks:
            _set(library, _GIVE_BACK)
            library.malloc_trim(0)


def run_in_calling_thread() -> None:
    """Let the CPU run programs in the thread that calls them, if JAX has not looked for devices.

    There they get the memory that `keep_memory` keeps. Steps wait for each other in any case, and
    the next batches are made in other threads. Where the environment decides
    (``JAX_CPU_ENABLE_ASYNC_DISPATCH``), nothing is changed.
    """
    if _DISPATCH.upper() not in os.environ:
        jax.config.update(_DISPATCH, False)


def _glibc() -> ctypes.CDLL | None:
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
