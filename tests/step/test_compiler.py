"""How steps are compiled for a GPU, on a machine that has none."""

import jax
import optax
import pytest
from stepping import batches
from tiny import mlp, one_device, same_bits, state_and_step

from medjax import Options, create_state_on, make_optimizer, state
from medjax.step import compiler
from medjax.target import target_is_deterministic


@pytest.fixture
def gpu(monkeypatch):
    """Take the devices of a mesh for GPUs."""
    for module in (state, compiler):
        monkeypatch.setattr(module, "platform_of", lambda mesh: "gpu")


@pytest.mark.parametrize("deterministic", [True, False])
def test_xla_knows_the_options_for_a_gpu(gpu, deterministic):
    wanted = compiler.compiled_for(one_device(), Options(deterministic=deterministic))
    options = wanted["compiler_options"]
    assert options.get("xla_gpu_deterministic_ops", False) == deterministic
    assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2  # it refuses unknown ones


@pytest.mark.parametrize("deterministic", [True, False])
def test_what_is_traced_for_a_gpu_knows_whether_to_be_deterministic(gpu, deterministic):
    seen, component = [], mlp()

    def forward(*args, **how):
        seen.append(target_is_deterministic())
        return component.forward(*args, **how)

    options = Options(deterministic=deterministic)
    made, step = state_and_step(component._replace(forward=forward), options=options)
    step(made, batches(component, 4)[0])
    assert set(seen) == {deterministic}


def test_the_state_for_a_gpu_is_that_of_the_cpu(monkeypatch):
    def created():
        component = mlp(optimizer=optax.adam)
        optimizer = make_optimizer(component)
        return create_state_on(one_device(), component, optimizer, seed=1, learning_rate=0.1)

    on_cpu = created()
    platforms = iter(["gpu", "cpu"])  # of the mesh that is asked for, and of the host's
    monkeypatch.setattr(state, "platform_of", lambda mesh: next(platforms))
    on_gpu = created()
    assert not list(platforms)
    assert same_bits(on_gpu, on_cpu)
    assert len(on_gpu.owners) == len(on_cpu.owners) == 2
