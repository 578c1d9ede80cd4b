"""How steps are compiled for a GPU, on a machine that has none, and for a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stepping import batches
from tiny import mlp, one_device, same_bits, state_and_step

from medjax import Options, create_state_on, make_optimizer
from medjax.runtime import CompiledStep
from medjax.state import creation
from medjax.step import compiler
from medjax.target import target_is_deterministic


@pytest.fixture
def gpu(monkeypatch):
    """Take the devices of a mesh for GPUs."""
    for module in (creation, compiler):
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
    monkeypatch.setattr(creation, "platform_of", lambda mesh: next(platforms))
    on_gpu = created()
    assert not list(platforms)
    assert same_bits(on_gpu, on_cpu)
    assert len(on_gpu.owners) == len(on_cpu.owners) == 2


SPLIT, WHOLE = compiler._ON_CPU, compiler._ON_CPU_SUMS_WHOLE


@pytest.fixture
def _old_jaxlib(monkeypatch):
    monkeypatch.setattr(compiler, "_SPLITTING_IS_SLOW", True)


def options_for(function, *args):
    options = compiler.compiled_for(one_device(), None, is_large=True)["options_for"]
    return options(jax.jit(function).trace(*args).jaxpr)


@pytest.mark.usefixtures("_old_jaxlib")
@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda x: x * 2, (2**20,), WHOLE),
        (jnp.sum, (2**18,), WHOLE),
        (jnp.sum, (2**19,), SPLIT),
        (lambda x: x.sum(0), (2**19, 2), SPLIT),
        (lambda x: x.sum(1), (2**19, 2), WHOLE),
        (jnp.mean, (2**10, 2**10), SPLIT),
        (jax.jit(jnp.sum), (2**19,), SPLIT),
        # XLA makes one sum of these, unless something else lies between.
        (lambda x: jnp.square(x).sum(1).sum(), (2**10, 2**10), SPLIT),
        (lambda x: x.sum(1).reshape(32, 32).sum(), (2**10, 2**10), SPLIT),
        (lambda x: jax.jit(jnp.sum)(jax.jit(lambda y: y.sum(1))(x)), (2**10, 2**10), SPLIT),
        (lambda x: jnp.where(x[0] > 0, x.sum(1), 0).sum(), (2**10, 2**10), SPLIT),
        (lambda x: jnp.stack([x.sum(1), x.sum(0)]).sum(), (2**10, 2**10), SPLIT),
        (lambda x: x.mean(1).mean(), (2**10, 2**10), SPLIT),
        (lambda x: (x.sum(1) + jnp.zeros(2**10)).sum(), (2**10, 2**10), SPLIT),
        (lambda x: (x.sum(1) + x[0]).sum(), (2**10, 2**10), WHOLE),
        (lambda x: x @ x.T, (2, 2**19), SPLIT),
        (lambda x: x @ x.T, (2**10, 2**10), WHOLE),
        (lambda x: jax.lax.conv(x, x, (1, 1), "VALID"), (1, 1, 2**10, 2**10), SPLIT),
        (lambda x: jax.lax.conv(x, x, (1, 1), "SAME"), (2**10, 2**10, 3, 3), WHOLE),
        (lambda x: jnp.sqrt(x.sum(1)).sum(), (2**10, 2**10), WHOLE),
        (lambda x: jax.lax.cond(x[0] > 0, jnp.sum, jnp.max, x), (2**19,), SPLIT),
        (
            lambda x: jax.lax.scan(lambda c, _: (c + x.sum(), None), 0.0, length=2)[0],
            (2**19,),
            SPLIT,
        ),
        (jax.grad(lambda x: jnp.sum(jax.checkpoint(jnp.sin)(x))), (2**18,), WHOLE),
    ],
)
def test_only_long_sums_are_split(function, shape, expected):
    assert options_for(function, jnp.ones(shape)) == expected


def test_small_steps_and_new_compilers_do_not_look(monkeypatch):
    monkeypatch.setattr(compiler, "_SPLITTING_IS_SLOW", True)
    assert compiler.compiled_for(one_device(), None)["options_for"] is None
    monkeypatch.setattr(compiler, "_SPLITTING_IS_SLOW", False)
    assert compiler.compiled_for(one_device(), None, is_large=True)["options_for"] is None


@pytest.mark.usefixtures("_old_jaxlib")
@pytest.mark.parametrize(
    "total",
    [
        lambda x: jnp.square(x).sum(1).sum(),
        lambda x: jnp.where(jnp.arange(2**12) >= 0, jnp.square(x).sum(1), 0).sum(),
        lambda x: jnp.stack([jnp.square(x).sum(1), 0 * x[0]]).sum(),
        lambda x: jax.lax.conv(x[None, None], x[None, None], (1, 1), "VALID").sum(),
    ],
    ids=["sums", "where", "stack", "convolution"],
)
def test_a_sum_of_sums_is_exact(total):
    def step(state, batch):
        return state + total(batch["x"])

    made = CompiledStep(
        step, "training", **compiler.compiled_for(one_device(), None, is_large=True)
    )
    x = np.random.default_rng(0).uniform(size=(2**12, 2**12)).astype("f4")
    exact = np.square(x, dtype="f8").sum()
    assert float(made(0.0, {"x": x})) == pytest.approx(exact, rel=1e-5)


@pytest.mark.usefixtures("_old_jaxlib")
def test_each_shape_has_its_options_and_is_traced_once():
    traced = []

    def step(state, batch):
        traced.append(batch["x"].shape)
        return state + batch["x"].sum()

    made = CompiledStep(
        step, "training", **compiler.compiled_for(one_device(), None, is_large=True)
    )
    draws = np.random.default_rng(0)
    for size in (2**10, 2**21, 2**10, 2**21):
        x = draws.uniform(size=size).astype("f4")
        assert float(made(0.0, {"x": x})) == pytest.approx(x.sum(dtype="f8"), rel=1e-6)
    assert traced == [(2**10,), (2**21,)]
    assert made.nb_compilations == 2


@pytest.mark.skipif(jax.__version_info__ >= (0, 11), reason="a later jaxlib splits sums elsewhere")
def test_a_short_sum_is_left_whole():
    made = CompiledStep(
        lambda state, batch: state + batch["x"].sum(),
        "training",
        **compiler.compiled_for(one_device(), None, is_large=True),
    )
    texts = [
        made.lower(0.0, {"x": np.ones(size, "f4")}).compile().as_text() for size in (2**10, 2**21)
    ]
    assert ["reduce-window" in text for text in texts] == [False, True]
