"""Compiled programs kept on disk, so that the second start of a job compiles nothing."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jaxlib
from jax.experimental.compilation_cache import compilation_cache as jax_cache

DEFAULT = Path(".cache", "medjax", "xla")
"""Folder of the cache in the user's home."""

NOISY = ("0.10.0", "0.10.1")
"""Releases of jaxlib that print two lines of 2,000 characters, which say that the processor lacks
features and may crash, for each program they read back for a CPU. Nothing is wrong with it."""

_CPU_INFO = Path("/proc/cpuinfo")


@contextlib.contextmanager
def cached(folder: str | Path | None) -> Iterator[None]:
    """Let JAX keep what it compiles until the block ends; then its settings are as before.

    A cache that JAX was told of otherwise, by its own configuration, is left in charge.

    Parameters
    ----------
    folder : str, Path or None
        ``"auto"`` stands for a folder in the user's home, or for no cache on CPUs with a release
        of jaxlib in `NOISY`; None for no cache. Programs for processors with other instructions
        lie in folders of their own, as a home may be shared.
    """
    config: Any = jax.config  # which lists none of its attributes
    own = config.jax_compilation_cache_dir is not None
    noisy = folder == "auto" and jaxlib.__version__ in NOISY and jax.default_backend() == "cpu"
    if folder is None or noisy or own or not config.jax_enable_compilation_cache:
        yield
        return
    path = (Path.home() / DEFAULT if folder == "auto" else Path(folder)) / _processor()
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


def _configure(settings: dict[str, object]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()  # JAX looks at the folder once only


def _processor() -> str:
    """Return a short name for the instructions this processor has."""
    lines = _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(features.encode()).hexdigest()[:12]
