"""DeBERTa-v2 and v3 compute what transformers computes, in every form that they come in."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict
from transformers.models.deberta_v2 import modeling_deberta_v2

from medjax.models import (
    TEXT_CLASSIFICATION,
    TOKEN_CLASSIFICATION,
    DebertaV2Config,
    make_encoder,
    read_config,
    read_params,
    write_checkpoint,
)
from medjax.models.families import family_of
from medjax.models.families.deberta.positions import rows_of_distances

LENGTH = 30
OWN = {"share_att_key": False, "norm_rel_ebd": "none", "num_hidden_layers": 1}
FORMS = {
    "v3": {},
    "v2 with convolution": {"conv_kernel_size": 3, "conv_act": "gelu"},
    "without buckets": {
        **OWN, "position_buckets": -1, "max_relative_positions": 6, "conv_kernel_size": 5,
        "conv_groups": 2, "type_vocab_size": 2,
    },
    "contents to positions": {
        **OWN, "pos_att_type": "c2p", "position_buckets": 5, "embedding_size": 24,
        "max_relative_positions": 14, "position_biased_input": True,
    },
    "positions to contents": {
        **OWN, "pos_att_type": ["p2c"], "pooler_hidden_act": "tanh", "type_vocab_size": 3,
    },
    "no kind of relative positions": {"pos_att_type": None, "num_hidden_layers": 1},
    "absolute positions": {
        **OWN, "relative_attention": False, "position_biased_input": True, "type_vocab_size": 2,
    },
}  # fmt: skip
MODELS = {
    TOKEN_CLASSIFICATION: transformers.AutoModelForTokenClassification,
    TEXT_CLASSIFICATION: transformers.AutoModelForSequenceClassification,
}
LABELS = ("O", "B-Disease", "I-Disease")


def batch_of(config, length=LENGTH, filler=0):
    """Return tokens and mask of three rows, and types of the tokens if the model has them."""
    rng = np.random.default_rng(0)
    tokens = np.full((3, length), filler)
    tokens[:, :LENGTH] = rng.integers(5, 99, (3, LENGTH))
    mask = (np.arange(length) < np.array([[LENGTH], [17], [1]])).astype(np.int32)
    batch = [np.where(mask, tokens, filler).astype(np.int32), mask]
    if config.type_vocab_size:
        batch.append((np.arange(length)[None] > 4) * mask)
    return batch


def torch_model(torch_classifier, task, fields):
    model = torch_classifier("deberta-v2", **fields)
    if task is TEXT_CLASSIFICATION:
        other = MODELS[task].from_config(model.config)
        other.deberta.load_state_dict(model.deberta.state_dict())
        other.classifier.load_state_dict(model.classifier.state_dict())
        model = other.eval()
    return model


def weights_of(task, mask):
    """Return factors of the logits in a loss: those of padded tokens do not count."""
    if task is TEXT_CLASSIFICATION:
        return np.linspace(-1, 1, 9).reshape(3, 3).astype(np.float32)
    return (np.linspace(-1, 1, 3) * mask[..., None]).astype(np.float32)


def torch_gradients(model, task, batch):
    """Return logits and gradients by name."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {n: torch.tensor(a).long() for n, a in zip(names, batch, strict=False)}
    logits = model(**inputs).logits
    (logits**2 * torch.tensor(weights_of(task, batch[1]))).sum().backward()
    gradients = {
        name: np.zeros(parameter.shape) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }
    return logits.detach().numpy(), gradients


def medjax_gradients(task, config, params, batch, **options):
    """Return logits and gradients by path."""
    model = task.model(config, 3, **options)
    weights = weights_of(task, batch[1])

    @jax.jit
    def run(params):
        def loss(params):
            logits = model.apply({"params": params}, *batch, deterministic=True)
            return jnp.sum(logits**2 * weights), logits

        return jax.grad(loss, has_aux=True)(params)

    gradients, logits = run(params)
    return np.asarray(logits), flatten_dict(gradients)


@pytest.mark.parametrize(
    ("form", "task"),
    [
        *((form, TOKEN_CLASSIFICATION) for form in FORMS),
        *(
            pytest.param(form, TEXT_CLASSIFICATION, marks=pytest.mark.slow)
            for form in ("v3", "positions to contents")
        ),
    ],
)
def test_logits_gradients_and_files_are_those_of_transformers(
    form, task, torch_classifier, tmp_path
):
    model = torch_model(torch_classifier, task, FORMS[form])
    model.save_pretrained(tmp_path / "theirs")
    config = read_config(tmp_path / "theirs")
    params = read_params(tmp_path / "theirs", config, task)
    batch = batch_of(config)
    expected, by_name = torch_gradients(model, task, batch)
    logits, by_path = medjax_gradients(task, config, params, batch)
    counts = weights_of(task, batch[1]) != 0
    np.testing.assert_allclose(logits[counts], expected[counts], rtol=0, atol=1e-5)
    family = family_of(config)
    tensors = family.tensors(config) + task.head_tensors(config)
    assert len(tensors) == len(by_path) == len(by_name)
    for tensor in tensors:
        name = f"{family.prefix}.{tensor.name}" if tensor.is_of_encoder else tensor.name
        ours, theirs = by_path[tensor.path], by_name[name]
        scale = max(1.0, np.abs(theirs).max())
        theirs = theirs.T if tensor.transposed else theirs
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * scale, err_msg=name)

    written = tmp_path / "ours"
    write_checkpoint(written, config, params, labels=LABELS, task=task)
    loaded, info = MODELS[task].from_pretrained(written, output_loading_info=True)
    assert not any(info.values())
    assert type(loaded) is type(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert read_config(written) == config


@pytest.fixture
def convolved(torch_classifier, tmp_path):
    """Configuration and parameters of a DeBERTa-v2 with a convolution."""
    fields = {**FORMS["v2 with convolution"], "num_hidden_layers": 1}
    torch_classifier("deberta-v2", **fields).save_pretrained(tmp_path)
    config = read_config(tmp_path)
    return config, read_params(tmp_path, config)


@pytest.mark.parametrize("form", ["v2 with convolution", "without buckets", "absolute positions"])
def test_padding_matters_neither_by_content_nor_by_length(form, torch_classifier, tmp_path):
    torch_classifier("deberta-v2", **FORMS[form]).save_pretrained(tmp_path)
    config = read_config(tmp_path)
    params = read_params(tmp_path, config)["encoder"]
    model, length = make_encoder(config), LENGTH + 9
    apply = jax.jit(lambda *batch: model.apply({"params": params}, *batch, deterministic=True))
    batch = batch_of(config, length)
    other = batch_of(config, length, filler=77)
    expected = apply(*(array[:, :LENGTH] for array in batch))
    actual = apply(*batch)
    real = batch[1] > 0
    np.testing.assert_array_equal(apply(*other)[real], actual[real])
    np.testing.assert_allclose(actual[:, :LENGTH][real[:, :LENGTH]], expected[real[:, :LENGTH]],
                               rtol=0, atol=1e-5)  # fmt: skip
    batch[1][2] = 0  # a row of only padding
    assert np.isfinite(apply(*batch)).all()


@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True}, {"attention_implementation": "cudnn"}]
)
def test_options_change_no_number(options, convolved):
    config, params = convolved
    batch = batch_of(config)
    expected, gradients = medjax_gradients(TOKEN_CLASSIFICATION, config, params, batch)
    actual, same = medjax_gradients(TOKEN_CLASSIFICATION, config, params, batch, **options)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    for path, gradient in gradients.items():
        scale = max(1.0, np.abs(gradient).max())
        np.testing.assert_allclose(same[path], gradient, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(convolved):
    config, params = convolved
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    batch = batch_of(config)
    batch[1][2] = 0  # a row of only padding
    expected, _ = medjax_gradients(TOKEN_CLASSIFICATION, config, params, batch)
    actual, gradients = medjax_gradients(TOKEN_CLASSIFICATION, config, half, batch)
    assert actual.dtype == np.float32
    assert np.abs(actual - expected)[batch[1] > 0].max() < 0.15 * expected.std()
    for gradient in gradients.values():
        assert gradient.dtype == jnp.bfloat16
        assert np.isfinite(gradient).all()


def test_dropout_depends_on_the_key_only(convolved):
    config, params = convolved
    model, batch = TOKEN_CLASSIFICATION.model(config, 3), batch_of(config)

    @jax.jit
    def run(seed):
        rngs = {"dropout": jax.random.key(seed)}
        return model.apply({"params": params}, *batch, deterministic=False, rngs=rngs)

    first, same, other = (run(seed) for seed in (1, 1, 2))
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)


TINY = DebertaV2Config(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    relative_attention=True,
    pos_att_type=("c2p",),
)


@pytest.mark.parametrize(
    ("nb_buckets", "furthest", "length"),
    [(256, 512, 1200), (32, 128, 300), (320, 512, 600), (8, 40, 90), (5, 24, 40), (2, 10, 30),
     (3, 3, 9), (-1, 16, 40), (-1, 64, 40), (256, 512, 1)],
)  # fmt: skip
def test_distances_have_the_embeddings_of_transformers(nb_buckets, furthest, length):
    config = dataclasses.replace(TINY, position_buckets=nb_buckets, max_relative_positions=furthest)
    tokens = torch.zeros(length, 1)
    (theirs,) = modeling_deberta_v2.build_relative_position(tokens, tokens, nb_buckets, furthest)
    span = nb_buckets if nb_buckets > 0 else furthest
    expected = torch.clamp(theirs + span, 0, 2 * span - 1).numpy()
    rows = rows_of_distances(config, length)
    distances = np.subtract.outer(np.arange(length), np.arange(length))
    np.testing.assert_array_equal(rows[length - 1 - distances], expected)


def test_the_configuration_of_v3_base_is_read(tmp_path):
    content = {
        "model_type": "deberta-v2", "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": 768, "initializer_range": 0.02,
        "intermediate_size": 3072, "max_position_embeddings": 512, "relative_attention": True,
        "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
        "pos_att_type": "p2c|c2p", "layer_norm_eps": 1e-7, "max_relative_positions": -1,
        "position_biased_input": False, "num_attention_heads": 12, "num_hidden_layers": 12,
        "type_vocab_size": 0, "vocab_size": 128100,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(content))
    config = read_config(tmp_path)
    assert config.pos_att_type == ("p2c", "c2p")
    assert (config.pad_token_id, config.max_length, config.position_span) == (0, 512, 256)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    for field in dataclasses.fields(config):
        ours = getattr(config, field.name)
        expected = getattr(theirs, field.name, None)
        if ours is not None and expected is not None:
            assert ours == (tuple(expected) if isinstance(ours, tuple) else expected), field.name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pos_att_type": "c2p|p2p"}, r"pos_att_type is \('c2p', 'p2p'\); expected some of 'c2p'"),
        ({"pos_att_type": 3}, "pos_att_type is 3; expected some of"),
        ({"attention_head_size": 16}, "attention_head_size is 16; expected 8 or none"),
        ({"pooler_hidden_size": 16}, "pooler_hidden_size is 16; expected 32 or none"),
        ({"conv_kernel_size": 4}, "conv_kernel_size is 4; expected 0 or an odd number"),
        ({"conv_kernel_size": 10**9 + 1}, "expected 0 or an odd number below 256"),
        ({"max_relative_positions": 2**40}, "expected at most 1,073,741,823"),
        ({"conv_groups": 5}, "conv_groups is 5; expected a number that hidden_size, 32"),
        ({"conv_act": "mish"}, "conv_act is 'mish'; this encoder supports gelu"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd is 'batch_norm'; this encoder supports"),
        ({"relative_attention": False}, "norm_rel_ebd is 'layer_norm'; expected 'none', or"),
        ({"position_buckets": 90}, "position_buckets is 90; expected -1 for none, or from 2 to 77"),
        ({"relative_attention": None}, "relative_attention is None; expected true or false"),
        ({"pooler_dropout": None}, r"pooler_dropout is None; expected a probability in \[0, 1\)"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(fields, message, torch_classifier, tmp_path):
    torch_classifier("deberta-v2").config.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    with pytest.raises(ValueError, match=rf"config\.json: .*{message}"):
        read_config(tmp_path)
