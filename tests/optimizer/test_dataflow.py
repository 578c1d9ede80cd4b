"""What can be inferred about a traced function: zeros and dependencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.optimizer.dataflow import depend_on, known_zeros

X = jax.ShapeDtypeStruct((3, 3), jnp.float32)
MASK = np.zeros((3, 3), np.float32)


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))

ZERO = {
    "zeros_like": lambda x, z: jnp.zeros_like(x),
    "product": lambda x, z: x * z + 0.0 * x,
    "mask": lambda x, z: -(MASK * x) / (1 + jnp.sqrt(z)),
    "sum": lambda x, z: jnp.sum(z) + jnp.mean(z - z),
    "matrix": lambda x, z: (x @ z).T.reshape(9)[2:],
    "where": lambda x, z: jnp.where(x > 0, z, 0.0),
    "jit": lambda x, z: jax.jit(jnp.multiply)(x, z),
    "cond": lambda x, z: jax.lax.cond(x[0, 0] > 0, lambda: z, lambda: x * z),
    "remat": lambda x, z: jax.checkpoint(lambda y: y * z)(x),
    "custom": lambda x, z: doubled(z),
    "power": lambda x, z: (z**2).astype(jnp.bfloat16),
    "barrier": lambda x, z: jax.lax.optimization_barrier((x, z))[1],
}
UNKNOWN = {
    "given": lambda x, z: x,
    "one": lambda x, z: z + 1.0,
    "where": lambda x, z: jnp.where(x > 0, z, x),
    "cond": lambda x, z: jax.lax.cond(x[0, 0] > 0, lambda: z, lambda: x),
    "cosine": lambda x, z: jnp.cos(z),
    "exponential": lambda x, z: jnp.exp(z),
    "power": lambda x, z: z**0,
    "inverse": lambda x, z: jax.lax.integer_pow(z, -1),
    "concatenated": lambda x, z: jnp.concatenate([x, z]),
    "pad": lambda x, z: jnp.pad(z, 1, constant_values=1.0),
    "divided": lambda x, z: x / z,
    "barrier": lambda x, z: jax.lax.optimization_barrier((x, z))[0],
    "key": lambda x, z: jax.random.normal(jax.random.key(0), (3,)),
}


@pytest.mark.parametrize("name", ZERO)
def test_outputs_that_are_zero_are_known(name):
    assert known_zeros(jax.make_jaxpr(ZERO[name])(X, X), [False, True]) == [True]


@pytest.mark.parametrize("name", UNKNOWN)
def test_outputs_that_may_not_be_zero_are_not_known(name):
    assert known_zeros(jax.make_jaxpr(UNKNOWN[name])(X, X), [False, True]) == [False]


@pytest.mark.parametrize("name", ZERO)
def test_known_zeros_are_zero(name):
    x = jnp.arange(1.0, 10).reshape(3, 3)
    assert not np.any(ZERO[name](x, jnp.zeros((3, 3))))


def test_a_tracer_of_an_outer_trace_is_not_a_known_zero():
    def outer(y):
        traced = jax.make_jaxpr(lambda x: x * 0 + y)(X)
        return known_zeros(traced, [False])

    zeros = []
    jax.eval_shape(lambda y: zeros.extend(outer(y)), X)
    assert zeros == [False]


def test_which_outputs_depend_on_which_inputs():
    def function(x, y):
        return x + 1, jax.jit(jnp.sin)(y), jnp.ones(3), jnp.where(y > 0, x, 1.0)

    traced = jax.make_jaxpr(function)(X, X)
    assert depend_on(traced, [True, False]) == [True, False, False, True]
    assert depend_on(traced, [False, True]) == [False, True, False, True]
