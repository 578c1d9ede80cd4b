"""The encoder: masks, dtypes, gradients and errors."""

import dataclasses
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers.activations import ACT2FN

from medjax.models import BertConfig, TokenClassifier
from medjax.models.activations import ACTIVATIONS
from medjax.models.families import FAMILIES

BERT = BertConfig(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    initializer_range=0.2,
)
CONFIGS = {
    "bert": BERT,
    "roberta": dataclasses.replace(BERT, model_type="roberta", pad_token_id=1),
    "electra": dataclasses.replace(BERT, model_type="electra", embedding_size=16),
    "distilbert": dataclasses.replace(BERT, model_type="distilbert", type_vocab_size=0),
}


@pytest.fixture(params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


@cache
def make_params(config):
    ids = jnp.ones((1, 2), jnp.int32)
    model = TokenClassifier(config, 3)
    return jax.jit(partial(model.init, deterministic=True))(jax.random.key(0), ids, ids)["params"]


@partial(jax.jit, static_argnums=0)
def apply(config, params, input_ids, mask, key=None):
    return TokenClassifier(config, 3).apply(
        {"params": params},
        input_ids,
        mask,
        deterministic=key is None,
        rngs=None if key is None else {"dropout": key},
    )


def test_the_configuration_of_every_family_allows_its_model_type():
    for model_type, family in FAMILIES.items():
        assert model_type in family.config.model_types


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_are_those_of_transformers(name):
    values = np.linspace(-6, 6, 101, dtype=np.float32)
    expected = ACT2FN[name](torch.tensor(values)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](values), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_the_length_of_padding_does_not_matter(model_type, make_batch):
    config = CONFIGS[model_type]
    params = make_params(config)
    short, short_mask = make_batch(config.pad_token_id, 12)
    long, long_mask = make_batch(config.pad_token_id, 30)
    expected = apply(config, params, short, short_mask)
    actual = apply(config, params, long, long_mask)[:, :12]
    real = short_mask > 0
    np.testing.assert_allclose(actual[real], expected[real], rtol=0, atol=1e-5)


def test_the_content_of_padding_does_not_matter(make_batch):
    params = make_params(BERT)
    input_ids, mask = make_batch()
    other_padding = np.where(mask, input_ids, 77)
    expected = apply(BERT, params, input_ids, mask)
    actual = apply(BERT, params, other_padding, mask)
    np.testing.assert_array_equal(actual[mask > 0], expected[mask > 0])


@pytest.mark.parametrize(
    ("model_type", "dtype"), [("roberta", jnp.float32), ("bert", jnp.bfloat16)]
)
def test_gradients_are_finite_even_for_rows_of_padding(model_type, dtype, make_batch):
    config = CONFIGS[model_type]
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), make_params(config))
    input_ids, mask = make_batch(config.pad_token_id)
    mask[3] = 0

    def loss(params, weights):
        logits = apply(config, params, input_ids, mask, jax.random.key(1))
        assert logits.dtype == jnp.float32
        return jnp.sum(logits**2 * weights[..., None])

    gradient = jax.jit(jax.grad(loss))
    only_padding = np.zeros(mask.shape, np.float32)
    only_padding[3] = 1
    for weights in (np.ones_like(only_padding), only_padding):
        for leaf in jax.tree.leaves(gradient(params, weights)):
            assert leaf.dtype == dtype
            assert np.isfinite(leaf).all()


def test_every_parameter_has_a_gradient(config, make_batch):
    params = make_params(config)
    input_ids, mask = make_batch(config.pad_token_id)

    def loss(params):
        return jnp.sum(apply(config, params, input_ids, mask) ** 2 * mask[..., None])

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        # The softmax does not depend on what all keys have in common, such as their bias.
        if "key" not in jax.tree_util.keystr(path) or gradient.ndim > 1:
            assert np.abs(gradient).max() > 0, path


def test_bfloat16_is_close_to_float32(make_batch):
    params = make_params(BERT)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    input_ids, mask = make_batch()
    expected = apply(BERT, params, input_ids, mask)
    actual = apply(BERT, half, input_ids, mask)
    assert actual.dtype == jnp.float32
    spread = float(jnp.std(expected))
    assert float(jnp.abs(actual - expected).max()) < 0.15 * spread


def test_dropout_depends_on_the_key_only(make_batch):
    params = make_params(BERT)
    batch = make_batch()
    first, same, other = (apply(BERT, params, *batch, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2'; this encoder supports bert"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0; expected a positive integer"),
        ({"num_attention_heads": 5}, "hidden_size is 32; expected a multiple"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob is 1.0; expected a probability"),
        ({"pad_token_id": 99}, "pad_token_id is 99; expected a token below vocab_size, 99"),
        ({"type_vocab_size": 0}, "type_vocab_size is 0; expected a positive integer"),
        ({"embedding_size": 16}, "embedding_size is 16; expected None, but for electra"),
        ({"model_type": "electra", "embedding_size": 0}, "expected a positive integer"),
        ({"model_type": "distilbert"}, "type_vocab_size is 2; expected 0 for distilbert"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps is 0.0; expected a positive number"),
        (
            {"model_type": "roberta", "max_position_embeddings": 1},
            "max_position_embeddings is 1; expected more than 1",
        ),
    ],
)
def test_invalid_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(BERT, **fields)


def test_inputs_that_the_model_cannot_take_are_refused(make_batch):
    roberta, distilbert = CONFIGS["roberta"], CONFIGS["distilbert"]
    ids = np.ones((1, 39), np.int32)
    with pytest.raises(ValueError, match="rows of 39 tokens; this roberta model takes at most 38"):
        apply(roberta, {}, ids, ids)
    ids = ids[:, :5]
    with pytest.raises(ValueError, match="distilbert has no token types"):
        TokenClassifier(distilbert, 3).apply({}, ids, ids, ids, deterministic=True)
