"""The masks of the hashed dropout are random and independent."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.dropout import Dropout, keep_mask

SIZE = 2**20


def correlation(first, second):
    return float(np.corrcoef(np.asarray(first, float), np.asarray(second, float))[0, 1])


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_of_dropped_elements_is_the_rate(rate):
    # The mean of a binomial share over 64 keys, within five standard deviations.
    share = np.mean(
        [1 - keep_mask(jax.random.key(i), rate, (SIZE // 16,)).mean() for i in range(64)]
    )
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / (4 * SIZE))


def test_the_number_of_dropped_elements_is_binomial():
    rate, size = 0.1, 4096
    keys = jax.random.split(jax.random.key(0), 1000)
    counts = size - jax.vmap(lambda key: keep_mask(key, rate, (size,)).sum())(keys)
    scores = (np.asarray(counts) - rate * size) / np.sqrt(size * rate * (1 - rate))
    assert abs(scores.mean()) < 0.15
    assert 0.9 < scores.std() < 1.1


def test_masks_of_different_keys_are_independent():
    masks = [keep_mask(jax.random.key(seed), 0.1, (SIZE,)) for seed in range(6)]
    for i, first in enumerate(masks):
        for second in masks[:i]:
            assert abs(correlation(first, second)) < 5 / np.sqrt(SIZE)


def test_neighbouring_elements_are_independent():
    mask = np.asarray(keep_mask(jax.random.key(0), 0.1, (SIZE,)))
    for lag in (1, 2, 3, 4, 8, 12, 32, 64, 384, 512, 1536, 4096, 65536):
        assert abs(correlation(mask[:-lag], mask[lag:])) < 5 / np.sqrt(SIZE)


def test_kept_values_are_scaled_to_preserve_the_mean():
    values = jnp.full((SIZE,), 3.0)
    dropped = Dropout(0.25).apply(
        {}, values, deterministic=False, rngs={"dropout": jax.random.key(0)}
    )
    assert set(np.unique(dropped)) == {0.0, 4.0}
    assert abs(float(dropped.mean()) - 3.0) < 0.02


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_dtype_does_not_change(dtype):
    values = jnp.ones((4, 4), dtype)
    rngs = {"dropout": jax.random.key(0)}
    assert Dropout(0.5).apply({}, values, deterministic=False, rngs=rngs).dtype == dtype


def test_nothing_is_dropped_if_deterministic_or_at_rate_zero():
    values = jnp.arange(5.0)
    np.testing.assert_array_equal(Dropout(0.5).apply({}, values, deterministic=True), values)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, values, deterministic=False), values)


def test_only_kept_elements_have_a_gradient():
    values = jnp.ones(1000)

    def dropped(values):
        rngs = {"dropout": jax.random.key(0)}
        return Dropout(0.5).apply({}, values, deterministic=False, rngs=rngs)

    gradient = jax.grad(lambda values: dropped(values).sum())(values)
    np.testing.assert_array_equal(gradient, dropped(values))
