"""Graphs of torch modules lowered for accelerators that this machine does not have."""

import itertools

import idiom_cases  # noqa: F401
import jax
import layer_cases  # noqa: F401
import loss_cases  # noqa: F401
import pytest
import sequence_cases  # noqa: F401
import torch
from torch_cases import CASES, Apply, f
from torch_graphs import constants_of, to_jax, trace

from medjax.target import tracing_for
from medjax_torch.lowerings import interpreter
from medjax_torch.lowerings.interpreter import LoweringError, missing_operators
from medjax_torch.lowerings.precision import multiplying_in


def exported(graph, flat, platform, dtype):
    constants = constants_of(graph)

    def evaluate(arguments, key):
        with multiplying_in(dtype), tracing_for(platform):
            return interpreter.run(graph, arguments, key, constants)

    arguments = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in map(to_jax, flat)]
    key = jax.eval_shape(lambda: jax.random.key(0))
    name = "cuda" if platform == "gpu" else platform
    return jax.export.export(jax.jit(evaluate), platforms=(name,))(arguments, key)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if number % 16 == 0 else pytest.mark.slow)
        for number, name in enumerate(CASES)
    ],
)
@pytest.mark.filterwarnings(
    "ignore:.*LSTM with projections is not supported with oneDNN:UserWarning",
    "ignore:.*weight_norm. is deprecated:FutureWarning",
)
def test_a_module_lowers(name):
    graph, flat = trace(*CASES[name]())
    for platform, dtype in itertools.product(("tpu", "gpu"), (None, jax.numpy.bfloat16)):
        module = exported(graph, flat, platform, dtype)
        assert "LayoutConstraint" not in module.mlir_module()
        assert all(
            leaf.dtype.itemsize < 8 or leaf.dtype == "complex64" for leaf in module.out_avals
        )


@pytest.mark.filterwarnings("ignore:No JAX lowering")
def test_an_operator_that_the_host_computes_is_refused_on_a_tpu():
    graph, flat = trace(
        Apply(lambda x: x.sum() + torch.special.bessel_j0(x).detach().sum()), (f(3),)
    )
    assert missing_operators(graph)
    with pytest.raises(LoweringError, match="on TPU this is not possible"):
        exported(graph, flat, "tpu", None)
