"""What all tests share: a cache of compiled programs, which is not the user's."""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

WITHOUT_CACHE = {"runtime"}
"""Folders whose tests are about JAX's own settings of the cache."""

TRACED = ("/jax/core/compile/jaxpr_trace_duration", "/jax/core/compile/backend_compile_duration")


@pytest.fixture
def traces():
    """Return the traces and compilations of JAX, as they happen."""
    seen: list[str] = []

    def listen(event, duration, **_):
        if event in TRACED:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module", autouse=True)
def compilation_cache(request, cache_folder):
    """Read equal programs from a cache: each `train` compiles its own steps, mostly the same.

    Processes that the tests start inherit it.
    """
    settings = {
        "jax_enable_compilation_cache": request.path.parent.name not in WITHOUT_CACHE,
        "jax_compilation_cache_dir": str(cache_folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if not settings["jax_enable_compilation_cache"]:
        settings["jax_compilation_cache_dir"] = None
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ.pop(name.upper(), None)
        if value is not None:
            os.environ[name.upper()] = str(value)
    jax_cache.reset_cache()  # JAX looks at these settings once only


# What the tests of these folders compile, hundreds of tiny programs, runs a few times each.
QUICKLY = {
    "tests",
    "callbacks",
    "checkpoint",
    "cli",
    "data",
    "distributed",
    "interop",
    "loop",
    "optimizer",
    "runtime",
    "step",
}


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly(request):
    if request.path.parent.name not in QUICKLY:
        yield
        return
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
