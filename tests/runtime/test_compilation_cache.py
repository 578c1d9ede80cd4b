"""Compiled programs are stored on disk and loaded by the next process, unless switched off."""

import subprocess
import sys
from pathlib import Path

import jax
import jaxlib
import pytest

from medjax.runtime.compilation_cache import cached

SCRIPT = """
import sys
import jax, jax.numpy as jnp
from medjax.runtime.compilation_cache import cached
jax.config.update("jax_enable_compilation_cache", True)
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.jit(lambda x: x + 1)(1.0)  # JAX has looked for a cache before the block, and found none
with cached(sys.argv[1]):
    jax.jit(lambda x: jnp.tanh(x) * 3)(jnp.arange(4.0))
assert jax.config.jax_compilation_cache_dir is None
print(sum("cache_hits" in event for event in hits), sum("cache_misses" in event for event in hits))
"""


def run(folder):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)], capture_output=True, text=True, check=True
    )
    return [int(word) for word in done.stdout.split()]


def test_a_second_process_compiles_nothing(tmp_path):
    hits, misses = run(tmp_path)
    assert (hits, misses > 0) == (0, True)
    assert run(tmp_path) == [misses, 0]


@pytest.fixture
def enabled():
    jax.config.update("jax_enable_compilation_cache", True)
    yield
    jax.config.update("jax_enable_compilation_cache", False)


@pytest.mark.usefixtures("enabled")
def test_jaxs_own_cache_takes_precedence_and_none_means_none(tmp_path):
    with cached(None):
        assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        with cached(tmp_path / "ours"):
            assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)


@pytest.mark.usefixtures("enabled")
def test_auto_is_a_folder_in_the_home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(jaxlib, "__version__", "0.12.0")
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    with cached("auto"):
        folder = Path(jax.config.jax_compilation_cache_dir)
        assert folder.parent == tmp_path / ".cache" / "medjax" / "xla"
        assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    assert jax.config.jax_persistent_cache_min_compile_time_secs == before
    with pytest.raises(KeyError), cached(tmp_path):
        raise KeyError
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.usefixtures("enabled")
def test_auto_is_none_where_loading_prints_false_warnings(tmp_path, monkeypatch):
    monkeypatch.setattr(jaxlib, "__version__", "0.10.1")
    with cached("auto"):
        assert jax.config.jax_compilation_cache_dir is None
    with cached(tmp_path):
        assert Path(jax.config.jax_compilation_cache_dir).parent == tmp_path
