"""cuDNN's attention: when it is taken, what it computes, what an NVIDIA GPU would be given."""

import dataclasses
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax.models import EncoderConfig, TokenClassifier, attention

CONFIG = EncoderConfig(
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
    """Pretend that cuDNN applies, let XLA compute what it is asked for, and list the dtypes."""
    seen = []

    def computed(query, key, value, *, implementation, **options):
        assert implementation == "cudnn"
        seen.append(query.dtype)
        return dot_product_attention(query, key, value, implementation="xla", **options)

    monkeypatch.setattr(attention, "has_cudnn_attention", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", computed)
    return seen


def test_it_computes_what_our_own_does(calls, make_batch):
    batch = make_batch()
    batch[1][3] = 0  # a row of padding alone
    weights = jnp.asarray(batch[1][..., None])

    def loss(params, implementation):
        found = logits(implementation, params, batch, train=True)
        return jnp.sum(found**2 * weights), found

    gradient = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    expected_gradients, expected = gradient(PARAMS, "xla")
    assert calls == []
    found_gradients, found = gradient(PARAMS, "cudnn")
    assert calls == [jnp.bfloat16] * CONFIG.num_hidden_layers
    assert np.isfinite(found).all()
    real = batch[1] > 0
    np.testing.assert_allclose(found[real], expected[real], rtol=0, atol=0.05 * np.std(expected))
    for a, b in zip(*map(jax.tree.leaves, (found_gradients, expected_gradients)), strict=True):
        a, b = np.float32(a), np.float32(b)
        assert np.linalg.norm(a - b) <= 0.05 * np.linalg.norm(b) + 0.05


def test_padding_before_a_token_does_not_pass_for_right(calls, make_batch):
    ids, mask = make_batch()
    mask[1] = mask[1, ::-1]
    found = logits("cudnn", PARAMS, (ids, mask))
    assert np.isnan(found[1]).all()
    assert np.isfinite(np.delete(found, 1, axis=0)).all()


def test_dropped_weights_are_left_to_xla(calls, make_batch):
    batch = make_batch()
    config = dataclasses.replace(CONFIG, attention_probs_dropout_prob=0.5)
    given = (logits(name, PARAMS, batch, config=config, train=True) for name in ("xla", "cudnn"))
    np.testing.assert_array_equal(*given)
    assert calls == []
    logits("cudnn", PARAMS, batch, config=config)  # in evaluation nothing is dropped
    assert len(calls) == CONFIG.num_hidden_layers


def test_float32_is_left_to_xla(calls, make_batch):
    params = jax.tree.map(lambda leaf: leaf.astype("float32"), PARAMS)
    batch = make_batch()
    np.testing.assert_array_equal(*(logits(name, params, batch) for name in ("xla", "cudnn")))
    assert calls == []


def test_without_a_gpu_xla_computes(make_batch):
    batch = make_batch()
    np.testing.assert_array_equal(*(logits(name, PARAMS, batch) for name in ("xla", "cudnn")))


@pytest.mark.parametrize(
    ("device", "applies"),
    [
        ({"compute_capability": "9.0"}, True),
        ({"compute_capability": "7.5"}, False),
        ({"compute_capability": "gfx942"}, False),
        ({}, False),
    ],
)
def test_the_device_decides(monkeypatch, device, applies):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(**device)])
    query = jnp.zeros((1, 2, 1, 8), jnp.bfloat16)
    assert attention.cudnn_applies(query) == applies
    for shape in [(1, 2, 1, 136), (1, 2, 1, 4)]:
        other = jnp.zeros(shape, jnp.bfloat16)
        assert not attention.cudnn_applies(other)


def test_a_gpu_is_given_cudnns_kernels(monkeypatch, make_batch):
    monkeypatch.setattr(attention, "has_cudnn_attention", lambda: True)
    # Where JAX asks the machine itself, which need not have a GPU.
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
