"""Compiles quickly: these tests compile hundreds of tiny programs and run each a few times."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def _compile_quickly():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
