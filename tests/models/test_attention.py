"""cuDNN's attention: when it is used, what it computes, what is compiled for an NVIDIA GPU."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import BertConfig, TokenClassifier, attention
from medjax.target import tracing_for

CONFIG = BertConfig(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    initializer_range=0.2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
IDS = np.ones((1, 2), np.int32)
PARAMS = jax.tree.map(
    lambda leaf: leaf.astype(jnp.bfloat16),
    TokenClassifier(CONFIG, 3).init(jax.random.key(0), IDS, IDS, deterministic=True)["params"],
)
dot_product_attention = jax.nn.dot_product_attention


def logits(implementation, params, batch, *, config=CONFIG, train=False):
    return TokenClassifier(config, 3, attention_implementation=implementation).apply(
        {"params": params}, *batch, deterministic=not train, rngs={"dropout": jax.random.key(1)}
    )


@pytest.fixture
def calls(monkeypatch):
    """Pretend that cuDNN applies, let XLA compute its results, and list the dtypes of the calls."""
    dtypes = []

    def computed_by_xla(query, key, value, *, implementation, **options):
        assert implementation == "cudnn"
        dtypes.append(query.dtype)
        return dot_product_attention(query, key, value, implementation="xla", **options)

    monkeypatch.setattr(attention, "has_cudnn_attention", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", computed_by_xla)
    return dtypes


def test_it_agrees_with_the_xla_implementation(calls, make_batch):
    batch = make_batch()
    batch[1][3] = 0  # a row of only padding
    weights = jnp.asarray(batch[1][..., None])

    def loss(params, implementation):
        actual = logits(implementation, params, batch, train=True)
        return jnp.sum(actual**2 * weights), actual

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    expected_gradients, expected = gradient(PARAMS, "xla")
    assert calls == []
    actual_gradients, actual = gradient(PARAMS, "cudnn")
    assert calls == [jnp.bfloat16] * CONFIG.num_hidden_layers
    assert np.isfinite(actual).all()
    real = batch[1] > 0
    np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=0.05 * np.std(expected))
    actual_leaves, expected_leaves = map(jax.tree.leaves, (actual_gradients, expected_gradients))
    for a, b in zip(actual_leaves, expected_leaves, strict=True):
        a, b = np.float32(a), np.float32(b)
        assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(b) + 0.05


def test_rows_with_padding_before_a_token_become_nan(calls, make_batch):
    ids, mask = make_batch()
    mask[1] = mask[1, ::-1]
    actual = logits("cudnn", PARAMS, (ids, mask))
    assert np.isnan(actual[1]).all()
    assert np.isfinite(np.delete(actual, 1, axis=0)).all()


def assert_same_logits(params, batch, **options):
    """Check that both implementations return the same, bit for bit."""
    xla, cudnn = (logits(name, params, batch, **options) for name in ("xla", "cudnn"))
    np.testing.assert_array_equal(xla, cudnn)


def test_xla_is_used_if_attention_weights_are_dropped(calls, make_batch):
    batch = make_batch()
    config = dataclasses.replace(CONFIG, attention_probs_dropout_prob=0.5)
    assert_same_logits(PARAMS, batch, config=config, train=True)
    assert calls == []
    logits("cudnn", PARAMS, batch, config=config)  # nothing is dropped in evaluation
    assert len(calls) == CONFIG.num_hidden_layers


def test_xla_is_used_for_float32(calls, make_batch):
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), PARAMS)
    assert_same_logits(params, make_batch())
    assert calls == []


def test_xla_is_used_without_a_gpu(make_batch):
    assert_same_logits(PARAMS, make_batch())


@pytest.mark.parametrize(
    ("device", "applies"),
    [
        ({"compute_capability": "9.0"}, True),
        ({"compute_capability": "7.5"}, False),
        ({"compute_capability": "gfx942"}, False),
        ({}, False),
    ],
)
def test_cudnn_applies_to_some_devices_and_head_sizes(monkeypatch, device, applies):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(**device)])
    query = jnp.zeros((1, 2, 1, 8), jnp.bfloat16)
    assert not attention.cudnn_applies(query)  # what is traced here runs on a CPU
    with tracing_for("gpu"):
        assert attention.cudnn_applies(query) == applies
        for shape in [(1, 2, 1, 136), (1, 2, 1, 4)]:
            other = jnp.zeros(shape, jnp.bfloat16)
            assert not attention.cudnn_applies(other)


def test_cudnn_is_refused_where_a_run_has_to_repeat_itself(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(compute_capability="9.0")])
    query = jnp.zeros((1, 2, 1, 8), jnp.bfloat16)
    with (
        tracing_for("gpu", deterministic=True),
        pytest.raises(ValueError, match=r"Options\(deterministic=False\).*or use .*'xla'"),
    ):
        attention.cudnn_applies(query)


def test_cudnn_kernels_are_compiled_for_a_gpu(monkeypatch, make_batch):
    monkeypatch.setattr(attention, "has_cudnn_attention", lambda: True)
    # JAX would query this machine, which may not have a GPU.
    cudnn = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(cudnn, "check_compute_capability", lambda capability: True)

    def loss(params, batch):
        return logits("cudnn", params, batch, train=True).sum()

    traced = jax.jit(jax.grad(loss)).trace(PARAMS, make_batch())
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    kernels = re.findall(r"custom_call @__cudnn\$(\w+)", program)
    assert sorted(kernels) == ["fmhaSoftmax"] * 2 + ["fmhaSoftmaxBackward"] * 2


def test_an_unknown_implementation_is_refused(make_batch):
    with pytest.raises(ValueError, match="is 'flash'; expected 'xla' or 'cudnn'"):
        logits("flash", PARAMS, make_batch())
