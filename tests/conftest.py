"""No test writes compiled programs to the user's home directory."""

import os

import jax
import pytest

os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # for the processes that tests start
jax.config.update("jax_enable_compilation_cache", False)

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


# What the tests of these folders compile, hundreds of tiny programs, runs a few times each.
QUICKLY = {
    "tests",
    "callbacks",
    "checkpoint",
    "data",
    "distributed",
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
