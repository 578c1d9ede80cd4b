"""Compilation in other threads."""

from __future__ import annotations

import functools
import time
from concurrent.futures import Future, ThreadPoolExecutor

import jax

__all__ = ["compile_aside", "is_compiling_aside"]

_ASIDE: set[Future[float]] = set()
"""The programs of `compile_aside` that are not done."""


def compile_aside(lowered: jax.stages.Lowered) -> Future[float]:
    """Compile in another thread; XLA needs Python for none of it.

    Parameters
    ----------
    lowered : jax.stages.Lowered
        From ``jax.jit(function).lower``. JAX keeps the program with it, where later calls of the
        function find it.

    Returns
    -------
    Future
        Gives the time of `time.perf_counter` when it was done.

    Examples
    --------
    >>> double = jax.jit(lambda x: 2 * x)
    >>> compiled = compile_aside(double.lower(1.0))
    >>> _ = compiled.result()
    >>> float(double(1.0))
    2.0
    """

    def compile_it() -> float:
        lowered.compile()
        return time.perf_counter()

    compiled = _threads().submit(compile_it)
    _ASIDE.add(compiled)
    compiled.add_done_callback(_ASIDE.discard)
    return compiled


def is_compiling_aside() -> bool:
    """Return whether XLA compiles in another thread."""
    return bool(_ASIDE)


@functools.cache
def _threads() -> ThreadPoolExecutor:
    """Return the threads that compile ahead; two, as compiling takes hundreds of megabytes."""
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="medjax-compile")
