"""The cache of compiled programs on disk, so that a job compiles nothing when it starts again."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib

from medjax.jax_internals import compilation_cache

__all__ = ["DEFAULT", "NOISY", "cache_folder", "cached"]

DEFAULT = Path(".cache", "medjax", "xla")
"""Folder of the cache within the user's home."""

NOISY = ("0.10.0", "0.10.1")
"""Releases of jaxlib that print a false warning for each program they load for a CPU: two lines of
2,000 characters, saying that the processor lacks features and may crash."""

_CPU_INFO = Path("/proc/cpuinfo")


@contextlib.contextmanager
def cached(folder: str | Path | None) -> Iterator[None]:
    """Make JAX store what it compiles within a ``with`` block, then restore JAX's settings.

    A cache that the user has configured in JAX itself is used instead.

    Parameters
    ----------
    folder : str, Path or None
        ``"auto"`` means a folder in the user's home, or no cache on CPUs with a release of jaxlib
        in `NOISY`. None means no cache. Processors with different instructions have separate
        subfolders, as machines may share a home.

    Examples
    --------
    >>> with cached(None):
    ...     pass  # train
    """
    config: Any = jax.config  # which lists none of its attributes
    path = None if config.jax_compilation_cache_dir is not None else cache_folder(folder)
    if path is None:
        yield
        return
    settings = {
        "jax_compilation_cache_dir": str(path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(config, name) for name in settings}
    _configure(settings)
    try:
        yield
    finally:
        _configure(before)


def cache_folder(folder: str | Path | None = "auto") -> Path | None:
    """Return where programs are stored, as `cached` says, or None for nowhere.

    Parameters
    ----------
    folder : str, Path or None
        As for `cached`; what the user has configured in JAX itself comes first.

    Examples
    --------
    >>> cache_folder(None) is None or jax.config.jax_compilation_cache_dir is not None
    True
    """
    config: Any = jax.config
    if not config.jax_enable_compilation_cache:
        return None
    if config.jax_compilation_cache_dir is not None:
        return Path(config.jax_compilation_cache_dir)
    noisy = folder == "auto" and jaxlib.__version__ in NOISY and jax.default_backend() == "cpu"
    if folder is None or noisy:
        return None
    return (Path.home() / DEFAULT if folder == "auto" else Path(folder)) / _processor()


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # otherwise JAX does not notice a change of the folder


def _processor() -> str:
    """Return a short name for the instruction set of this processor."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(features.encode()).hexdigest()[:12]
