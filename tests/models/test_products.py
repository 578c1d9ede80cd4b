"""Matrix products and their custom gradients equal those of JAX, in float32 and bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models.products import Dense, matmul, product


def operands(leading, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    x, y, g = (rng.normal(size=(*leading, *size)) for size in ((5, 7), (7, 3), (5, 3)))
    return jnp.asarray(x, dtype), jnp.asarray(y, dtype), jnp.asarray(g, jnp.float32)


@pytest.mark.parametrize("leading", [(), (2,), (2, 4)])
def test_values_and_gradients_in_float32_equal_those_of_jax(leading):
    x, y, g = operands(leading)
    with jax.default_matmul_precision("highest"):
        expected, transpose = jax.vjp(jnp.matmul, x, y)
        actual, pullback = jax.vjp(lambda x, y: matmul(x, y, jnp.float32), x, y)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    for ours, theirs in zip(pullback(g), transpose(g), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_rounds_factors_and_accumulates_in_float32():
    x, y, g = operands(())
    actual, pullback = jax.vjp(lambda x, y: matmul(x, y, jnp.bfloat16), x, y)
    rounded = [np.asarray(value.astype(jnp.bfloat16), np.float32) for value in (x, y, g)]
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, rounded[0] @ rounded[1], rtol=1e-6)
    to_x, to_y = pullback(g)
    assert to_x.dtype == to_y.dtype == jnp.float32
    np.testing.assert_allclose(to_x, rounded[2] @ rounded[1].T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(to_y, rounded[0].T @ rounded[2], rtol=1e-5, atol=1e-6)


def test_gradients_have_the_types_of_their_operands():
    x, y, g = operands((2,))
    y = y.astype(jnp.bfloat16)
    _, pullback = jax.vjp(lambda x, y: matmul(x, y, y.dtype), x, y)
    assert [value.dtype for value in pullback(g)] == [jnp.float32, jnp.bfloat16]


def test_gradients_have_the_precision_of_the_forward_pass():
    x, y, _ = operands(())

    def loss(x, y):
        with jax.default_matmul_precision("highest"):
            return matmul(x, y, jnp.float32).sum()

    jaxpr = str(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(x, y))
    assert jaxpr.count("HIGHEST") == 2 * jaxpr.count("dot_general[") >= 4


def test_dense_has_the_parameters_and_outputs_of_flax():
    inputs = jnp.ones((2, 3, 4))
    ours, theirs = Dense(6), nn.Dense(6)
    params = ours.init(jax.random.key(0), inputs)
    expected = theirs.init(jax.random.key(0), inputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected)
    np.testing.assert_allclose(
        ours.apply(expected, inputs), theirs.apply(expected, inputs), rtol=1e-6
    )


@pytest.mark.parametrize("leading", [(), (2,), (2, 4)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_transposed_second_operand_gives_the_same_product(leading, dtype):
    x, y, _ = operands(leading, dtype)
    actual = jax.jit(lambda x, y: product(x, y, transposed=True))(x, jnp.swapaxes(y, -1, -2))
    np.testing.assert_allclose(actual, product(x, y), rtol=1e-5, atol=1e-6)


def test_a_transposed_gradient_in_bfloat16_is_computed_on_a_cpu():
    # XLA would make a product of transposes of it, for which the backend has no kernel.
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(4, 3, 30, 8)), jnp.float32) for _ in range(2))

    def loss(y, dtype):
        return jnp.sum(matmul(x, jnp.swapaxes(y, -1, -2), dtype) ** 2) + jnp.sum(y**2)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    expected = gradient(y, jnp.float32)
    actual = gradient(y, jnp.bfloat16)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=0.02 * np.abs(expected).max())
