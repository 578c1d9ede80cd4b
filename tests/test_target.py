"""What a program is traced for is known in all that it calls, jitted functions included."""

import jax
import jax.numpy as jnp
import pytest

from medjax.models.products import matmul
from medjax.runtime.jit import CompiledStep
from medjax.target import target_is_deterministic, target_platform, tracing_for


@jax.jit
def jitted(x):
    return matmul(x, x, jnp.bfloat16)


@jax.checkpoint
def recomputed(x):
    return matmul(x, x, jnp.bfloat16)


@pytest.mark.parametrize("function", [jitted, recomputed])
def test_a_function_that_was_traced_for_one_platform_is_traced_again_for_another(function):
    """A product of bfloat16 matrices is float32 on a CPU, laid out for its kernels."""
    step = CompiledStep(lambda state, batch: function(batch["x"]), "training")
    batch = {"x": jnp.ones((4, 4))}
    assert step(None, batch).dtype == jnp.float32
    elsewhere = step.export("tpu", None, batch)
    assert elsewhere.out_avals[0].dtype == jnp.bfloat16
    assert "LayoutConstraint" not in elsewhere.mlir_module()
    assert step(None, batch).dtype == jnp.float32


def test_the_enclosing_platform_is_kept():
    with tracing_for("gpu", deterministic=True):
        with tracing_for(None):
            assert target_platform() == "gpu"
            assert not target_is_deterministic()
        assert target_is_deterministic()
    assert target_platform() == jax.default_backend()
