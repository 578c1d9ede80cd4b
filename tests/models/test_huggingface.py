"""Checkpoints are read and written, and every family computes what transformers computes."""

import json

import jax
import numpy as np
import pytest
import torch
import transformers
from flax.traverse_util import flatten_dict
from safetensors.numpy import load_file, save_file

from medjax.models import (
    TokenClassifier,
    make_encoder,
    read_config,
    read_labels,
    read_params,
    write_checkpoint,
)

LABELS = ("O", "B-Disease", "I-Disease")


def torch_outputs(model, *inputs):
    """Return hidden states and logits of a model of transformers."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    tensors = {
        name: torch.tensor(value, dtype=torch.long)
        for name, value in zip(names, inputs, strict=False)
    }
    with torch.no_grad():
        result = model(**tensors, output_hidden_states=True)
    return result.hidden_states[-1].numpy(), result.logits.numpy()


def medjax_outputs(folder, *inputs):
    """Return hidden states and logits of a checkpoint read by medjax."""
    config = read_config(folder)
    params = read_params(folder, config)
    encoder, classifier = make_encoder(config), TokenClassifier(config, len(read_labels(folder)))

    @jax.jit
    def run(params):
        hidden = encoder.apply({"params": params["encoder"]}, *inputs, deterministic=True)
        return hidden, classifier.apply({"params": params}, *inputs, deterministic=True)

    return [np.asarray(output) for output in run(params)]


def assert_close_at_tokens(actual, expected, mask):
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ours[mask > 0], theirs[mask > 0], rtol=0, atol=1e-5)


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_tensors(folder, edit):
    """Replace the weights by `edit(tensors)`, where `tensors` is a dict."""
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def test_outputs_equal_those_of_transformers(checkpoint, make_batch):
    model, folder = checkpoint
    batch = make_batch(model.config.pad_token_id)
    assert_close_at_tokens(medjax_outputs(folder, *batch), torch_outputs(model, *batch), batch[1])


def test_outputs_with_token_types_equal_those_of_transformers(
    torch_classifier, make_batch, tmp_path
):
    model = torch_classifier("bert", hidden_act="gelu_new")
    model.save_pretrained(tmp_path)
    input_ids, mask = make_batch()
    batch = (input_ids, mask, (np.arange(12) > 4) * mask)
    assert_close_at_tokens(medjax_outputs(tmp_path, *batch), torch_outputs(model, *batch), mask)


def test_transformers_loads_a_written_checkpoint(checkpoint, make_batch, tmp_path):
    model, folder = checkpoint
    edit_config(folder, note="kept", torch_dtype="float16", _name_or_path="elsewhere")
    config = read_config(folder)
    write_checkpoint(
        tmp_path / "written",
        config,
        read_params(folder, config),
        labels=LABELS,
        original_folder=folder,
    )
    loaded, info = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "written", output_loading_info=True
    )
    assert type(loaded) is type(model)
    assert loaded.dtype == torch.float32
    assert not any(info.values())
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert loaded.config.note == "kept"
    assert read_labels(tmp_path / "written") == LABELS
    assert read_config(tmp_path / "written") == config
    batch = make_batch(config.pad_token_id)
    np.testing.assert_array_equal(torch_outputs(loaded, *batch)[1], torch_outputs(model, *batch)[1])


def test_a_checkpoint_can_be_written_without_an_original(bert_folder, tmp_path):
    config = read_config(bert_folder)
    write_checkpoint(tmp_path / "new", config, read_params(bert_folder, config), labels="abcde")
    loaded = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "new")
    assert loaded.config.num_labels == 5
    for name, expected in load_file(bert_folder / "model.safetensors").items():
        np.testing.assert_array_equal(loaded.state_dict()[name].numpy(), expected)


def assert_equal_params(actual, expected):
    actual, expected = flatten_dict(actual), flatten_dict(expected)
    assert actual.keys() == expected.keys()
    for path, leaf in actual.items():
        np.testing.assert_array_equal(leaf, expected[path])


def test_a_base_model_has_no_head(bert_folder, tmp_path):
    transformers.AutoModel.from_pretrained(bert_folder).save_pretrained(tmp_path / "base")
    config = read_config(tmp_path / "base")
    assert read_labels(tmp_path / "base") is None
    task = read_params(bert_folder, config)
    assert set(task) == {"encoder", "classifier"}
    assert_equal_params(read_params(tmp_path / "base", config), {"encoder": task["encoder"]})


@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("architectures", [None, "unchanged"])
def test_the_head_of_another_task_is_ignored(model_type, architectures, torch_classifier, tmp_path):
    config = torch_classifier(model_type).config
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path)
    if architectures is None:
        edit_config(tmp_path, architectures=None)
    assert read_labels(tmp_path) is None
    assert set(read_params(tmp_path, read_config(tmp_path))) == {"encoder"}


@pytest.mark.parametrize("architectures", [None, [], ["BertModel"]])
def test_a_token_classifier_is_recognised_by_its_weights(architectures, checkpoint):
    model, folder = checkpoint
    if model.config.model_type == "modernbert":
        pytest.skip("its classifiers of tokens and of texts have the same weights")
    expected = read_labels(folder)
    assert expected == tuple(model.config.id2label.values())
    edit_config(folder, architectures=architectures)
    assert read_labels(folder) == expected
    assert set(read_params(folder, read_config(folder))) == {"encoder", "classifier"}


def test_with_a_pooler_the_configuration_decides(bert_folder):
    # Token classifiers of transformers before version 4 kept the pooler.
    pooler = {"weight": np.zeros((32, 32), np.float32), "bias": np.zeros(32, np.float32)}
    names = {f"bert.pooler.dense.{name}": values for name, values in pooler.items()}
    edit_tensors(bert_folder, lambda tensors: tensors | names)
    assert len(read_labels(bert_folder)) == 5
    edit_config(bert_folder, architectures=None)
    assert read_labels(bert_folder) is None
    edit_config(bert_folder, id2label=dict(enumerate(("O", "B-a", "I-a", "B-b", "I-b"))))
    assert read_labels(bert_folder) == ("O", "B-a", "I-a", "B-b", "I-b")


def test_old_names_of_layer_norm_are_read(bert_folder):
    config = read_config(bert_folder)
    expected = read_params(bert_folder, config)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def rename(tensors):
        for new_name, old_name in old.items():
            tensors = {name.replace(new_name, old_name): leaf for name, leaf in tensors.items()}
        return tensors

    edit_tensors(bert_folder, rename)
    assert any(name.endswith("gamma") for name in load_file(bert_folder / "model.safetensors"))
    assert_equal_params(read_params(bert_folder, config), expected)


def test_sharded_weights_are_read(bert_folder, tmp_path):
    model = transformers.AutoModelForTokenClassification.from_pretrained(bert_folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    config = read_config(bert_folder)
    assert_equal_params(read_params(tmp_path / "shards", config), read_params(bert_folder, config))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_to_float32(dtype, bert_folder, tmp_path):
    model = transformers.AutoModelForTokenClassification.from_pretrained(bert_folder)
    model.to(dtype).save_pretrained(tmp_path / "half")
    kernel = read_params(tmp_path / "half", read_config(tmp_path / "half"))["classifier"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel.T, model.classifier.weight.detach().float().numpy())


def test_default_labels_that_transformers_leaves_out_are_read(
    torch_classifier, bert_folder, tmp_path
):
    torch_classifier("bert", num_labels=2).save_pretrained(tmp_path / "two")
    assert "id2label" not in json.loads((tmp_path / "two" / "config.json").read_text())
    assert read_labels(tmp_path / "two") == ("LABEL_0", "LABEL_1")
    edit_config(bert_folder, id2label=None)
    with pytest.raises(ValueError, match="names 2 classes; the classifier of the weights has 5"):
        read_labels(bert_folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "deberta"}, "model_type is 'deberta'; supported are bert, camembert"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
        ({"is_decoder": True}, "is_decoder is True; only False"),
        ({"hidden_act": "mish"}, "hidden_act is 'mish'; this encoder supports gelu"),
        ({"hidden_size": 30}, "hidden_size is 30; expected a multiple"),
    ],
)
def test_unsupported_configurations_are_refused(fields, message, bert_folder):
    edit_config(bert_folder, **fields)
    with pytest.raises(ValueError, match=message):
        read_config(bert_folder)


def test_the_error_names_a_missing_size(bert_folder):
    (bert_folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 99}')
    with pytest.raises(ValueError, match="lacks 'hidden_size'"):
        read_config(bert_folder)


def test_labels_with_a_gap_are_refused(bert_folder):
    edit_config(bert_folder, id2label={"0": "O", "2": "B"})
    with pytest.raises(ValueError, match="expected 0, 1, 2"):
        read_labels(bert_folder)


def test_the_default_padding_token_is_that_of_transformers(checkpoint):
    model, folder = checkpoint
    if model.config.model_type == "modernbert":
        edit_config(folder, vocab_size=50368)
        model.config.pad_token_id = transformers.ModernBertConfig().pad_token_id
    edit_config(folder, pad_token_id=None)
    assert read_config(folder).pad_token_id == model.config.pad_token_id


@pytest.mark.parametrize("content", ["{", "[]"])
def test_the_error_names_a_damaged_config(content, bert_folder):
    (bert_folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"config\.json"):
        read_config(bert_folder)


def test_the_error_names_a_missing_file(bert_folder):
    config = read_config(bert_folder)
    (bert_folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no model\.safetensors"):
        read_params(bert_folder, config)
    (bert_folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ValueError, match=r"Pickles are never loaded\. If you trust .* convert it"):
        read_params(bert_folder, config)
    (bert_folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"no config\.json"):
        read_config(bert_folder)


def test_the_error_names_damaged_weights(bert_folder):
    file = bert_folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot read .*model\.safetensors"):
        read_params(bert_folder, read_config(bert_folder))


def test_missing_tensors_wrong_shapes_and_types_are_refused(bert_folder):
    config = read_config(bert_folder)
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    edit_tensors(bert_folder, lambda tensors: tensors | {name: tensors[name][:60].copy()})
    with pytest.raises(ValueError, match=r"layer\.1.* has shape \[60, 32\].* requires \[64, 32\]"):
        read_params(bert_folder, config)
    edit_tensors(bert_folder, lambda tensors: tensors | {name: np.zeros((64, 32), np.int8)})
    with pytest.raises(ValueError, match="is I8; expected one of"):
        read_params(bert_folder, config)
    edit_tensors(bert_folder, lambda tensors: {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ValueError, match=r"lacks tensor 'encoder\.layer\.1\.intermediate"):
        read_params(bert_folder, config)


def test_parameters_and_labels_that_do_not_match_are_not_written(bert_folder, tmp_path):
    config = read_config(bert_folder)
    params = read_params(bert_folder, config)
    with pytest.raises(ValueError, match=r"classifier/bias has shape \(5,\).* require \(3,\)"):
        write_checkpoint(tmp_path / "new", config, params, labels=LABELS)
    with pytest.raises(ValueError, match="expected each name once"):
        write_checkpoint(tmp_path / "new", config, params, labels=["O"] * 5)
    with pytest.raises(ValueError, match="classifier/bias has shape None"):
        write_checkpoint(tmp_path / "new", config, {"encoder": params["encoder"]}, labels=LABELS)
    assert not (tmp_path / "new").exists()
