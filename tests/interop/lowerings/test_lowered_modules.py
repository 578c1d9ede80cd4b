"""Outputs, gradients and state of small torch modules in JAX equal torch's."""

import idiom_cases  # noqa: F401
import layer_cases  # noqa: F401
import loss_cases  # noqa: F401
import numpy as np
import pytest
import sequence_cases  # noqa: F401
import torch
from torch_cases import CASES
from torch_graphs import eager, on_jax, trace

from medjax_torch.lowerings import missing_operators


def assert_near(actual, expected, name):
    if expected is None or actual is None:
        assert expected is None, name
        assert actual is None, name
        return
    expected = expected.detach().resolve_conj()
    coarse = expected.dtype in (torch.bfloat16, torch.float16)
    expected = (expected.float() if coarse else expected).numpy()
    assert actual.shape == expected.shape, name
    tolerance = 1e-2 if coarse else 2e-6
    if not np.issubdtype(expected.dtype, np.inexact):
        tolerance = 0
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    actual = np.asarray(actual, expected.dtype)
    np.testing.assert_allclose(
        actual, expected, rtol=tolerance, atol=tolerance * scale, err_msg=name
    )


@pytest.mark.filterwarnings(
    "ignore:.*LSTM with projections is not supported with oneDNN:UserWarning",
    "ignore:.*weight_norm. is deprecated:FutureWarning",
)
@pytest.mark.parametrize("name", CASES)
def test_module_equals_torch(name):
    module, inputs = CASES[name]()
    expected = eager(module, inputs)
    graph, flat = trace(module, inputs)
    assert missing_operators(graph) == []
    actual = on_jax(graph, flat)
    leaves = [("loss", expected.loss)]
    for field in ("outputs", "gradients", "state"):
        leaves += [(f"{field} {i}", value) for i, value in enumerate(getattr(expected, field))]
    assert len(actual) == len(leaves)
    for value, (place, wanted) in zip(actual, leaves, strict=True):
        assert_near(value, wanted, place)
