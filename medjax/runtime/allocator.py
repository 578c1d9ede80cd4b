"""Keeping the memory that a program frees for the next one: on the CPU, with glibc.

A program of XLA allocates its working memory when it starts and frees it when it ends. glibc
returns blocks of that size to the kernel immediately, and the kernel has to clear every page again
for the next step. That takes an eighth of a training step of MiniLM in float32, and a fifth in
bfloat16. glibc can be told to keep the blocks, but only in the main thread: in other threads a
block above 64 MiB (``HEAP_MAX_SIZE`` in ``malloc/arena.c``) always comes from the kernel.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import os
from collections.abc import Iterator

import jax

from medjax.jax_internals import has_devices

__all__ = [
    "give_back_memory",
    "keep_memory",
    "run_in_calling_thread",
    "warn_of_other_threads",
]

logger = logging.getLogger("medjax")

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # parameters of mallopt(3), from glibc's malloc.h
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}  # -1: return nothing to the kernel
# By default at most 2**16 blocks are mapped, and the threshold adapts itself up to 64 MiB.
_GIVE_BACK = {_MMAP_MAX: 2**16, _TRIM_THRESHOLD: 2**26}

_WORTH_IT = 2**26  # bytes

_DISPATCH = "jax_cpu_enable_async_dispatch"

_open_blocks: list[None] = []  # an entry for each, as all blocks share the process's allocator


@contextlib.contextmanager
def keep_memory() -> Iterator[None]:
    """Keep freed memory for reuse within a ``with`` block, for programs that run on the CPU.

    `train` and `evaluate` do this themselves. Put a loop of your own over the steps in such a
    block, in the main thread, and call `make_mesh` before JAX creates its first array or key;
    ``from_pretrained`` does. On accelerators, without glibc, or if the environment configures the
    allocator (``MALLOC_...``, ``GLIBC_TUNABLES``), nothing is changed.

    Examples
    --------
    >>> with keep_memory():
    ...     pass  # run the steps
    """
    run_in_calling_thread()
    library = _keeps_memory()
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


def give_back_memory(nb_bytes: int) -> None:
    """Return freed memory to the kernel, from any thread, also within `keep_memory`.

    For work that is done once, such as saving or tracing, whose memory the steps cannot reuse:
    each thread keeps what it frees, in pieces. Without glibc, or if the environment configures the
    allocator, nothing happens.

    Parameters
    ----------
    nb_bytes : int
        Size of what the work was done on. Below 64 MiB nothing happens, as looking through the
        memory of a process takes up to 0.1 s.

    Examples
    --------
    >>> give_back_memory(2**20)
    """
    library = _glibc() if nb_bytes >= _WORTH_IT else None
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def run_in_calling_thread() -> bool:
    """Make the CPU run programs in the thread that calls them, if JAX has no devices yet.

    Only there do they get the memory that `keep_memory` keeps. Nothing is lost: steps depend on
    each other anyway, and batches are prepared in other threads. If the environment sets
    ``JAX_CPU_ENABLE_ASYNC_DISPATCH``, nothing is changed.

    Returns
    -------
    bool
        False if JAX already had devices at the first call in this process.

    Examples
    --------
    >>> in_time = run_in_calling_thread()
    """
    if _DISPATCH.upper() in os.environ:
        return True
    if has_devices():
        return False
    jax.config.update(_DISPATCH, False)
    return True


def warn_of_other_threads(nb_bytes: int) -> None:
    """Warn that the CPU runs programs in other threads, where that makes them slower.

    Parameters
    ----------
    nb_bytes : int
        Size of what is trained. Below 64 MiB there is no warning.
    """
    is_in_time = run_in_calling_thread()
    if not is_in_time and nb_bytes >= _WORTH_IT and _keeps_memory():
        logger.warning(
            "JAX had its devices before medjax could set how the CPU runs programs, so the memory "
            "of each step goes back to the kernel and a step takes up to a fourth longer. Call "
            "medjax.make_mesh() before the first array or key is created."
        )


def _keeps_memory() -> ctypes.CDLL | None:
    """Return the C library if it can be told to keep memory for programs on the CPU."""
    return _glibc() if jax.default_backend() == "cpu" else None


def _glibc() -> ctypes.CDLL | None:
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return None
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return library if hasattr(library, "gnu_get_libc_version") else None


def _set(library: ctypes.CDLL, values: dict[int, int]) -> None:
    for name, value in values.items():
        library.mallopt(name, value)
