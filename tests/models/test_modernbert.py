"""ModernBERT computes what transformers computes, in blocks as without."""

import dataclasses
import json

import flax.linen as nn
import jax
import numpy as np
import pytest
import torch
import transformers

from medjax.models import (
    TEXT_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    ModernBertConfig,
    layers,
    read_config,
    read_labels,
    read_params,
    write_checkpoint,
)

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 300,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "cls_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
}
CASES = {
    "short": ({"local_attention": 8}, 20),
    "in blocks": ({"local_attention": 8, "classifier_pooling": "mean"}, 131),
    "with biases": (
        {
            "local_attention": 70,
            "norm_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "classifier_bias": True,
            "hidden_activation": "silu",
            "classifier_activation": "relu",
            "num_attention_heads": 2,
        },
        150,
    ),
    "one kind of layers": (
        {"local_attention": 16, "layer_types": ["sliding_attention"] * 3},
        128,
    ),
}
SMALL = ModernBertConfig(
    vocab_size=99,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=8,
    local_attention=8,
    attention_dropout=0.5,
)
TASKS = {
    TOKEN_CLASSIFICATION: transformers.ModernBertForTokenClassification,
    TEXT_CLASSIFICATION: transformers.ModernBertForSequenceClassification,
}


def torch_model(task, **fields):
    """Return a random model of transformers whose biases and scales are random, too."""
    torch.manual_seed(0)
    config = transformers.ModernBertConfig(**{**SIZES, **fields}, num_labels=3)
    model = TASKS[task]._from_config(config, attn_implementation="eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def batch_of(length):
    rng = np.random.default_rng(0)
    sizes = np.array([length, length // 2 + 1, 3])
    mask = (np.arange(length) < sizes[:, None]).astype(np.int32)
    return np.where(mask, rng.integers(5, 99, mask.shape), 0).astype(np.int32), mask


def scored(logits, mask, weights):
    """Weigh the logits of texts or of real tokens."""
    if logits.ndim == 3:
        logits = logits * mask[..., None]
    return (logits**2 * weights).sum(), logits


@pytest.mark.parametrize(
    ("case", "task"),
    [
        *((case, TOKEN_CLASSIFICATION) for case in CASES),
        *(pytest.param(case, TEXT_CLASSIFICATION, marks=pytest.mark.slow) for case in CASES),
    ],
)
def test_logits_and_gradients_are_those_of_transformers(case, task, tmp_path):
    fields, length = CASES[case]
    model = torch_model(task, **fields)
    model.save_pretrained(tmp_path)
    ids, mask = batch_of(length)
    weights = np.linspace(0.5, 1.5, 3, dtype=np.float32)

    logits = model(torch.tensor(ids).long(), torch.tensor(mask).long()).logits
    loss, expected = scored(logits, torch.tensor(mask), torch.tensor(weights))
    loss.backward()
    for parameter in model.parameters():
        parameter.data = parameter.grad
    model.save_pretrained(tmp_path / "gradients")

    config = read_config(tmp_path)
    flax_model = task.model(config, 3)

    @jax.jit
    def run(params):
        def loss(params):
            logits = flax_model.apply({"params": params}, ids, mask, deterministic=True)
            return scored(logits, mask, weights)

        return jax.grad(loss, has_aux=True)(params)

    gradients, actual = run(read_params(tmp_path, config, task))
    np.testing.assert_allclose(actual, expected.detach().numpy(), rtol=0, atol=1e-4)
    wanted = read_params(tmp_path / "gradients", config, task)
    assert jax.tree.structure(gradients) == jax.tree.structure(wanted)
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_written_folders_open_in_transformers(task, tmp_path):
    model = torch_model(task, local_attention=8, norm_bias=True)
    model.save_pretrained(tmp_path / "first")
    config = read_config(tmp_path / "first")
    params = read_params(tmp_path / "first", config, task)
    labels = ("O", "B-a", "I-a")
    write_checkpoint(tmp_path / "second", config, params, labels=labels, task=task)
    loaded, info = TASKS[task].from_pretrained(tmp_path / "second", output_loading_info=True)
    assert not any(info.values())
    assert read_labels(tmp_path / "second", task) == labels
    assert read_config(tmp_path / "second") == dataclasses.replace(
        config, layer_types=tuple(model.config.layer_types)
    )
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name].numpy(), tensor.numpy())
    other = {TOKEN_CLASSIFICATION: TEXT_CLASSIFICATION, TEXT_CLASSIFICATION: TOKEN_CLASSIFICATION}
    assert read_labels(tmp_path / "second", other[task]) is None


def test_the_head_of_a_language_model_is_kept(tmp_path):
    model = transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(**SIZES))
    model.save_pretrained(tmp_path)
    params = read_params(tmp_path, read_config(tmp_path))
    assert set(params) == {"encoder", "head"}
    kernel = model.head.dense.weight.detach().numpy().T
    np.testing.assert_array_equal(params["head"]["dense"]["kernel"], kernel)


def test_a_configuration_of_transformers_4(tmp_path):
    sizes = {name: value for name, value in SIZES.items() if not name.endswith("_token_id")}
    text = {
        "model_type": "modernbert",
        "pad_token_id": 0,
        **sizes,
        "num_hidden_layers": 4,
        "global_attn_every_n_layers": 2,
        "global_rope_theta": 7.0,
        "local_rope_theta": None,
    }
    (tmp_path / "config.json").write_text(json.dumps(text))
    config = read_config(tmp_path)
    assert [config.is_local(layer) for layer in range(4)] == [False, True, False, True]
    assert (config.global_rope_theta, config.local_rope_theta) == (7.0, 7.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling is .*yarn"),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn' for"),
        ({"layer_types": ["full_attention"]}, "layer_types is .*for each layer"),
        ({"classifier_pooling": "max"}, "classifier_pooling is 'max'"),
    ],
)
def test_what_is_not_supported_is_named(fields, message, tmp_path):
    content = {"model_type": "modernbert", **SIZES, **fields}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path)


def gradient_of(model, params, ids, mask):
    @jax.jit
    def run(params):
        logits = model.apply({"params": params}, ids, mask, deterministic=True)
        return (logits**2 * mask[..., None]).sum()

    return jax.tree.leaves(jax.grad(run)(params))


@pytest.mark.slow
def test_gradients_that_are_computed_again_and_in_bfloat16():
    config = dataclasses.replace(SMALL, attention_dropout=0.0)
    ids, mask = batch_of(40)
    model = TOKEN_CLASSIFICATION.model(config, 2)
    params = model.init(jax.random.key(0), ids, mask, deterministic=True)["params"]
    expected = gradient_of(model, params, ids, mask)
    again = TOKEN_CLASSIFICATION.model(config, 2, gradient_checkpointing=True)
    for one, other in zip(gradient_of(again, params, ids, mask), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    half = jax.tree.map(lambda leaf: leaf.astype(jax.numpy.bfloat16), params)
    scale = max(np.abs(leaf).max() for leaf in expected)
    for one, other in zip(gradient_of(model, half, ids, mask), expected, strict=True):
        assert one.dtype == jax.numpy.bfloat16
        np.testing.assert_allclose(one.astype(np.float32), other, rtol=0, atol=0.03 * scale)


def test_attention_dropout_in_blocks_depends_on_the_key():
    ids = np.ones((1, 128), np.int32)
    model = TOKEN_CLASSIFICATION.model(SMALL, 2)
    params = jax.jit(lambda key: model.init(key, ids, ids, deterministic=True))(jax.random.key(0))

    @jax.jit
    def run(number):
        keys = {"dropout": jax.random.key(number)}
        return model.apply(params, ids, ids, deterministic=False, rngs=keys)

    np.testing.assert_array_equal(run(1), run(1))
    assert np.isfinite(run(1)).all()
    assert np.abs(run(1) - run(2)).max() > 1e-3


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_attention_in_blocks_of_queries(rate, monkeypatch):
    rng = np.random.default_rng(0)
    query, key, value = rng.normal(size=(3, 2, 37, 2, 4)).astype(np.float32)
    bias = layers.attention_bias(np.arange(37) < np.array([[37], [20]]))

    class Attention(nn.Module):
        @nn.compact
        def __call__(self, query, key, value):
            arrays = (query, key, value, bias)
            return layers.attend(*arrays, rate=rate, dtype="float32", implementation="xla")

    def results(limit, seed=1):
        monkeypatch.setattr(layers, "_LONG", limit)

        def loss(*arrays):
            attended = Attention().apply({}, *arrays, rngs={"dropout": jax.random.key(seed)})
            return (attended**2).sum(), attended

        return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(query, key, value)

    actual = results(8)
    if rate == 0:
        for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(results(64)), strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)
        return
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(actual))
    (_, first), (_, same), (_, others) = actual[0], results(8)[0], results(8, seed=2)[0]
    np.testing.assert_array_equal(first, same)
    assert np.abs(first - others).max() > 0.1
    # Blocks have masks of their own: equal queries of two blocks attend to different tokens.
    query[:] = query[:, :1]
    (_, repeated), _ = results(8)
    assert np.abs(repeated[:, :8] - repeated[:, 8:16]).max() > 0.1
