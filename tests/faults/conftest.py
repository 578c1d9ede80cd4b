from __future__ import annotations

import os
import signal
from pathlib import Path

import jax
import job
import pytest
from breaking import At, DiedError, die
from jax.experimental.compilation_cache import compilation_cache as jax_cache


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for compiled programs that all modules share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(cache_folder: Path):
    """Read the equal steps that each `train` compiles from a cache, for the tests of this folder.

    Processes that the tests start inherit it; tests of other folders do not.
    """
    names = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(cache_folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    in_environment = {name: os.environ.get(name.upper()) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    jax_cache.reset_cache()  # JAX looks at these settings once only
    yield
    for name, value in before.items():
        jax.config.update(name, value)
        os.environ.pop(name.upper())
        if in_environment[name] is not None:
            os.environ[name.upper()] = in_environment[name]
    jax_cache.reset_cache()


@pytest.fixture(autouse=True)
def ctrl_c_interrupts():
    """Set the handler that Python has by itself, unless it was started in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return the report of the job when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("reference") / "out"
    return job.report(job.run(folder, options=job.EVERY_3), folder)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that died in epoch 3 after its checkpoint at batch 3: within an
    accumulation, with all kinds of state in use. Copy it before use."""
    folder = tmp_path_factory.mktemp("saved") / "out"
    with pytest.raises(DiedError):
        job.run(folder, callback=At(3, 3, "train", die), options=job.EVERY_3)
    return folder
