"""Which files contain the weights, what counts as a token classifier, and other formats."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from medjax.models import read_config, read_labels, read_params

TAGS = ("O", "B-a", "I-a", "B-b", "I-b")
POOLER = {
    "bert.pooler.dense.weight": np.zeros((32, 32), np.float32),
    "bert.pooler.dense.bias": np.zeros(32, np.float32),
}


def edit_config(folder, **fields):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_tensors(folder, edit):
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: {name: leaf for name, leaf in t.items() if name != "classifier.bias"},
        lambda t: t | {"classifier.weight": np.zeros((5, 64), np.float32)},
        lambda t: t | {"classifier.weight": np.zeros(5, np.float32)},
    ],
    ids=["no bias", "of two hidden states", "not a matrix"],
)
def test_a_classifier_of_other_inputs_is_ignored(edit, bert_folder):
    edit_tensors(bert_folder, edit)
    assert read_labels(bert_folder) is None
    assert set(read_params(bert_folder, read_config(bert_folder))) == {"encoder"}


@pytest.mark.parametrize(
    ("architectures", "names", "expected"),
    [
        (["BertForTokenClassification"], "abcde", tuple("abcde")),
        (["BertForSequenceClassification"], TAGS, None),
        (["BertForMultipleChoice"], TAGS, None),
        (["BertModel"], TAGS, TAGS),
        (["BertCrfForNer"], TAGS, TAGS),
        (None, ("B_a", "I_a", "b_b", "i_b", "B_c"), ("B_a", "I_a", "b_b", "i_b", "B_c")),
        (None, "abcde", None),
        (["BertModel"], "abcde", None),
    ],
)
def test_with_a_pooler_architectures_and_tags_decide(architectures, names, expected, bert_folder):
    edit_tensors(bert_folder, lambda tensors: tensors | POOLER)
    edit_config(bert_folder, architectures=architectures, id2label=dict(enumerate(names)))
    assert read_labels(bert_folder) == expected


def test_two_tensors_for_one_parameter_are_refused(bert_folder):
    name = "embeddings.word_embeddings.weight"
    edit_tensors(bert_folder, lambda tensors: tensors | {name: tensors[f"bert.{name}"] + 1})
    message = f"two tensors for '{name}': 'bert.{name}' and '{name}'; expected one"
    with pytest.raises(ValueError, match=message):
        read_params(bert_folder, read_config(bert_folder))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adapter_model.safetensors", "contains adapter_model.safetensors, an adapter without its"),
        ("model.fp16.safetensors", "no model.safetensors in .*, only model.fp16.safetensors; exp"),
        ("model.gguf", "contains model.gguf, weights of another framework; expected model.safet"),
    ],
)
def test_weights_in_another_file_are_refused(name, message, bert_folder):
    config = read_config(bert_folder)
    (bert_folder / "model.safetensors").rename(bert_folder / name)
    with pytest.raises(ValueError, match=message):
        read_params(bert_folder, config)


def test_git_lfs_pointers_to_shards_and_pickles_are_refused(bert_folder):
    config = read_config(bert_folder)
    (bert_folder / "model.safetensors").unlink()
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    (bert_folder / "pytorch_model.bin").write_text(pointer)
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is a Git LFS pointer.*lfs pull"):
        read_params(bert_folder, config)
    (bert_folder / "model-1.safetensors").write_text(pointer)
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (bert_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"model-1\.safetensors is a Git LFS pointer"):
        read_params(bert_folder, config)


@pytest.mark.parametrize(
    ("architectures", "expected"),
    [
        (None, "AutoModelForTokenClassification"),
        (["BertCrfForNer"], "AutoModelForTokenClassification"),
        (["BertForTokenClassification"], "BertForTokenClassification"),
    ],
)
def test_the_advised_conversion_keeps_the_head(architectures, expected, bert_folder, tmp_path):
    """Runs the advised commands except those for the tokenizer, which this folder lacks."""
    config = read_config(bert_folder)
    edit_config(bert_folder, architectures=architectures, id2label=dict(enumerate(TAGS)))
    kernel = read_params(bert_folder, config)["classifier"]["kernel"]
    model = transformers.AutoModelForTokenClassification.from_pretrained(bert_folder)
    (bert_folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), bert_folder / "pytorch_model.bin")
    edit_config(bert_folder, architectures=architectures)
    with pytest.raises(ValueError, match="Pickles are never loaded") as caught:
        read_params(bert_folder, config)
    lines = [line.strip() for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert lines[0] == f"from transformers import AutoTokenizer, {expected}"
    converted = tmp_path / "converted"
    exec("\n".join(lines[:2]).replace("'converted'", repr(str(converted))))
    assert read_labels(converted) == TAGS
    np.testing.assert_array_equal(read_params(converted, config)["classifier"]["kernel"], kernel)


def test_the_advised_conversion_of_a_base_model_adds_no_head(bert_folder):
    config = read_config(bert_folder)
    (bert_folder / "model.safetensors").rename(bert_folder / "pytorch_model.bin")
    edit_config(bert_folder, architectures=None, id2label=None)
    with pytest.raises(ValueError, match="import AutoTokenizer, AutoModel\n"):
        read_params(bert_folder, config)
