"""Count the pages that the kernel clears for a block just freed, which shows if it was kept."""

import ctypes
import os
import resource

import pytest

SIZE = 2**27
PAGES = SIZE // resource.getpagesize()

needs_glibc = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="memory is kept with glibc"
)


def forget_settings(monkeypatch):
    """Leave the allocator to the process: the environment says nothing of it."""
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)


def pages_cleared(beyond=0):
    """Return how many pages the kernel clears for a block like one that was just freed.

    The block is longer by `beyond` bytes that are not touched.
    """
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = ctypes.c_void_p(library.malloc(ctypes.c_size_t(SIZE + beyond)))
        assert block, "no room for the block"
        ctypes.memset(block, 1, SIZE)
        library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
