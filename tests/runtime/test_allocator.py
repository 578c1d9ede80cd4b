"""Freed memory is kept while training on the CPU, and returned afterwards."""

import contextlib
import os
import subprocess
import sys

import jax
import pytest
from pages import PAGES, forget_settings, needs_glibc, pages_cleared
from tiny import config, mlp, points

import medjax
from medjax.loop import setup
from medjax.runtime import keep_memory

pytestmark = needs_glibc


@pytest.fixture(autouse=True)
def _no_settings_of_the_environment(monkeypatch):
    forget_settings(monkeypatch)


def test_memory_is_kept_until_the_end_of_the_block():
    assert pages_cleared() >= PAGES
    with keep_memory():
        assert pages_cleared() < PAGES / 10
    assert pages_cleared() >= PAGES
    with contextlib.suppress(KeyError), keep_memory():
        raise KeyError
    assert pages_cleared() >= PAGES


def test_gibibytes_of_memory_are_kept():
    with keep_memory():
        assert pages_cleared(beyond=2**31) < PAGES / 10


def test_an_inner_block_does_not_end_the_outer_one():
    with keep_memory():
        with keep_memory():
            pass
        assert pages_cleared() < PAGES / 10
    assert pages_cleared() >= PAGES


@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_take_precedence(monkeypatch, name):
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


LATE = """
import jax, logging
import medjax, numpy as np
from medjax.runtime import warn_of_other_threads
logging.basicConfig(format="%(message)s")
{before}
warn_of_other_threads(2**20)
warn_of_other_threads(2**30)
"""


@pytest.mark.parametrize(
    ("before", "warned"),
    [("jax.random.key(0)", True), ("medjax.make_mesh(); jax.random.key(0)", False), ("", False)],
)
def test_who_uses_jax_too_early_is_told_once(monkeypatch, before, warned):
    monkeypatch.delenv("JAX_CPU_ENABLE_ASYNC_DISPATCH", raising=False)
    command = [sys.executable, "-c", LATE.format(before=before)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr.count("medjax.make_mesh()") == warned


def test_training_looks_at_the_size_of_the_parameters(tmp_path, monkeypatch):
    sizes = []
    monkeypatch.setattr(setup, "warn_of_other_threads", sizes.append)
    component = mlp()
    result = medjax.train(component, config(tmp_path), points(8), points(8), callback=[])
    assert sizes == [sum(leaf.nbytes for leaf in jax.tree.leaves(result.state.params))]
