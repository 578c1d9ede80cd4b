"""Memory that is freed is kept while training on the CPU, and given back afterwards."""

import contextlib
import ctypes
import os
import resource
import subprocess
import sys

import jax
import pytest
from tiny import config, mlp, points

import medjax
from medjax.heap import keep_memory

SIZE = 2**27
PAGES = SIZE // resource.getpagesize()

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="memory is kept with glibc"
)


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(monkeypatch):
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


def test_a_block_is_kept_until_the_end():
    assert pages_cleared() >= PAGES
    with keep_memory():
        assert pages_cleared() < PAGES / 10
    assert pages_cleared() >= PAGES
    with contextlib.suppress(KeyError), keep_memory():
        raise KeyError
    assert pages_cleared() >= PAGES


def test_a_block_of_gibibytes_is_kept():
    with keep_memory():
        assert pages_cleared(beyond=2**31) < PAGES / 10


def test_a_block_within_a_block_ends_nothing():
    with keep_memory():
        with keep_memory():
            pass
        assert pages_cleared() < PAGES / 10
    assert pages_cleared() >= PAGES


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_are_left_in_charge(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with keep_memory():
        assert pages_cleared() >= PAGES


def test_accelerators_change_nothing(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with keep_memory():
        assert pages_cleared() >= PAGES


class Watch(medjax.TrainerCallback):
    def __init__(self):
        self.cleared = []

    def on_step_end(self, *args, **kwargs):
        self.cleared.append(pages_cleared())


def test_training_and_evaluation_keep_memory(tmp_path):
    data, component, watch = points(8), mlp(), Watch()
    result = medjax.train(component, config(tmp_path), data, data, callback=watch)
    medjax.evaluate(component, result.state.variables, config(tmp_path), data, callback=watch)
    assert len(watch.cleared) > 4
    assert max(watch.cleared) < PAGES / 10
    assert pages_cleared() >= PAGES


SCRIPT = """
import jax, jax.numpy as jnp
import medjax
medjax.sharding.make_mesh()
for _ in range(3):
    found = jax.jit(lambda x: jnp.sort(x * x))(jnp.arange(3e6))
    print(found.is_ready())
"""


@pytest.mark.parametrize("asked", [None, "1"])
def test_programs_run_in_the_calling_thread_unless_asked_otherwise(asked):
    environment = {**os.environ, "JAX_CPU_ENABLE_ASYNC_DISPATCH": asked or ""}
    if asked is None:
        del environment["JAX_CPU_ENABLE_ASYNC_DISPATCH"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == [str(asked is None)] * 3
