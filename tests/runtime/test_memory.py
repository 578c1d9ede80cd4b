"""Memory: the state is not copied, and out-of-memory errors say what to lower."""

import jax
import jax.numpy as jnp
import optax
import pytest
from stepping import POINTS
from tiny import CLASSES, FEATURES, config, mlp, on_device, points, state_and_step

import medjax
from medjax import BatchData, Mean, Options, OutOfMemoryError, with_update_due
from medjax.runtime import CompiledStep
from medjax.runtime.jit import explaining_memory

DATA = points(16)
HUGE = 2**21  # its square, in float32, is 16 TiB


def wide(key):
    """Return parameters that are much larger than everything else."""
    return {
        "params": {
            "w1": jax.random.normal(key, (FEATURES, 20_000)),
            "b1": jnp.zeros(20_000),
            "w2": jax.random.normal(key, (20_000, CLASSES)),
            "b2": jnp.zeros(CLASSES),
        }
    }


def nbytes(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return (jax.random.key_data(leaf) if is_key else leaf).nbytes


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize(
    "options", [Options(), Options(precision="bfloat16", on_non_finite="skip", max_grad_norm=1.0)]
)
def test_the_step_reuses_the_buffers_of_the_state(accumulation, options):
    component = mlp(optimizer=optax.adamw)._replace(init=wide)
    state, step = state_and_step(component, accumulation=accumulation, options=options)
    batch = on_device(component, POINTS[:1])
    memory = step.lower(state, with_update_due(batch, True)).compile().memory_analysis()
    size = sum(map(nbytes, jax.tree.leaves(state)))
    # A rate that is always replaced must not even be read.
    assert size - memory.alias_size_in_bytes <= state.learning_rate.nbytes
    assert memory.output_size_in_bytes - memory.alias_size_in_bytes < 1000
    assert memory.temp_size_in_bytes < size


def hungry(*, eval_mode):
    """Return a component that needs terabytes in one phase."""
    component = mlp()

    def forward(variables, batch, key, /, **flags):
        outputs, loss, collections = component.forward(variables, batch, key, **flags)
        if flags["eval_mode"] == eval_mode:
            long = jnp.arange(HUGE) * jax.lax.stop_gradient(loss.total)
            sorted_products = jnp.sort(jnp.sin(long) * long[:, None], axis=0)
            loss = Mean(loss.total + sorted_products.max(), loss.weight)
        return outputs, loss, collections

    return component._replace(forward=forward)


@pytest.mark.parametrize("phase", ["training", "evaluation"])
def test_a_run_without_enough_memory_says_what_to_lower(tmp_path, phase):
    component = hungry(eval_mode=phase == "evaluation")
    with pytest.raises(OutOfMemoryError) as caught:
        medjax.train(component, config(tmp_path, learning_rate=0.0), DATA, DATA)
    error = caught.value
    assert error.phase == phase
    assert f"out of memory in {phase} with a batch of" in str(error)
    for part in ("x float32[4,4]", "row_mask float32[4]", "batch_size", "length_ladder"):
        assert part in str(error)
    assert "precision='bfloat16'" in str(error)
    assert "gradient_accumulation_steps" in str(error)
    assert ("gradient_checkpointing=True" in str(error)) == (phase == "training")
    assert isinstance(error.__cause__, jax.errors.JaxRuntimeError)


def raising(message):
    def call(*args):
        raise jax.errors.JaxRuntimeError(message)

    return call


def test_a_step_that_cannot_be_compiled_names_its_own_batch(monkeypatch):
    step = CompiledStep(lambda state, batch: state + batch["x"].sum(), "prediction")
    large, small = (BatchData(x=jnp.ones((size, 3))) for size in (8, 2))
    step(jnp.zeros(()), large)
    monkeypatch.setattr(step, "_jitted", raising("RESOURCE_EXHAUSTED: Ran out of memory in hbm"))
    with pytest.raises(OutOfMemoryError, match=r"prediction with a batch of x float32\[2,3\]\."):
        step(jnp.zeros(()), small)
    with (
        pytest.raises(OutOfMemoryError, match=r"a batch of x float32\[8,3\]\."),
        explaining_memory(step),
    ):
        raising("INTERNAL: Error dispatching computation: Out of memory allocating 9 bytes.")()


def test_other_errors_of_xla_are_raised_unchanged(monkeypatch):
    step = CompiledStep(lambda state, batch: state, "training")
    monkeypatch.setattr(step, "_jitted", raising("INTERNAL: a kernel failed"))
    with pytest.raises(jax.errors.JaxRuntimeError, match="a kernel failed"):
        step(0, {"x": jnp.ones(3)})
    with pytest.raises(jax.errors.JaxRuntimeError, match="of another"), explaining_memory(step):
        raising("INTERNAL: of another")()
