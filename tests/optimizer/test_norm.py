"""The norm of all gradients, and clipping by it, are optax's."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from medjax.optimizer import global_norm
from medjax.optimizer.norm import clip_by_norm


def gradients(scale=1.0):
    draws = np.random.default_rng(0)
    shapes = {"embedding": (3000, 40), "stack": (2, 300, 200), "kernel": (8, 4), "bias": (70_000,)}
    return {name: jnp.asarray(scale * draws.normal(size=s), "f4") for name, s in shapes.items()}


def test_the_norm_is_that_of_all_elements():
    tree = gradients()
    exact = np.sqrt(sum((np.asarray(x, "f8") ** 2).sum() for x in tree.values()))
    assert float(jax.jit(global_norm)(tree)) == pytest.approx(exact, rel=1e-6)
    assert float(global_norm(tree)) == pytest.approx(float(optax.tree.norm(tree)), rel=1e-6)


@pytest.mark.parametrize("name", ["embedding", "bias", "kernel"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_number_that_is_not_finite_is_seen(name, value):
    tree = gradients()
    tree[name] = tree[name].at[0].set(value)
    assert not np.isfinite(global_norm(tree))


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_clipping_is_that_of_optax(scale):
    tree, clip = gradients(scale), optax.clip_by_global_norm(1.0)
    expected, _ = clip.update(tree, clip.init(tree))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), clip_by_norm(tree, 1.0), expected
    )
