"""Model folders are checked before training: every fault raises an error that names it."""

import json
import re
import shutil

import jax
import numpy as np
import pytest
import torch
import transformers
from safetensors.numpy import load_file, save_file

from medjax.components import TokenClassification
from medjax.text import Document, Entity

LABELS = ["Problem", "Test", "Treatment"]


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny tagger's folder, for tests that damage it."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def edit_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def edit_tensors(folder, edit):
    file = folder / "model.safetensors"
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


def name_classes(folder, names):
    """Rename the classes of the tiny tagger, and resize its classifier to as many rows."""
    edit_json(folder / "config.json", id2label=dict(enumerate(names)))

    def resize(tensors):
        for name in ("classifier.weight", "classifier.bias"):
            tensors[name] = np.resize(tensors[name], (len(names), *tensors[name].shape[1:]))
        return tensors

    edit_tensors(folder, resize)


def test_a_folder_without_tokenizer_files_is_refused(folder):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(ValueError, match=r"no tokenizer in .*: found none of its files, expected"):
        TokenClassification.from_pretrained(folder, LABELS)


def test_a_vocabulary_larger_than_the_embeddings_is_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    content = json.loads((folder / "tokenizer.json").read_text())
    added = {**content["added_tokens"][0], "id": config["vocab_size"], "content": "[DRUG]"}
    edit_json(folder / "tokenizer.json", added_tokens=[*content["added_tokens"], added])
    size = config["vocab_size"]
    message = (
        rf"tokenizer\.json numbers tokens up to {size} \('\[DRUG\]'\); the embeddings have "
        rf"vocab_size = {size} rows"
    )
    with pytest.raises(ValueError, match=message):
        TokenClassification.from_pretrained(folder, LABELS)


def test_weights_of_another_size_are_refused(folder):
    edit_json(folder / "config.json", vocab_size=5000)
    with pytest.raises(ValueError, match=r"word_embeddings\.weight.* its config\.json requires"):
        TokenClassification.from_pretrained(folder, LABELS)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"metadata": {}}, "weight_map is None; expected tensor names"),
        ({"weight_map": []}, r"weight_map is \[\]; expected tensor names"),
        ({"weight_map": {"a": 3}}, "weight_map is {'a': 3}; expected tensor names"),
        ({"weight_map": {"a": "x.safetensors"}}, "names x.safetensors, which is not there"),
        ({"weight_map": {"a": "../x.safetensors"}}, r"names the file '\.\./x.safetensors'; expect"),
    ],
)
def test_an_invalid_shard_index_is_refused(index, message, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"index\.json: weight_map|" + message) as caught:
        TokenClassification.from_pretrained(folder, LABELS)
    assert re.search(message, str(caught.value))


def test_the_commands_in_the_error_convert_pickled_weights(folder, tmp_path, monkeypatch):
    expected = TokenClassification.from_pretrained(folder)
    variables = expected.init(jax.random.key(0))
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    message = r"contains pytorch_model\.bin and no model\.safetensors"
    with pytest.raises(ValueError, match=message) as caught:
        TokenClassification.from_pretrained(folder)
    lines = [line[4:] for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert "BertForTokenClassification" in lines[0]
    monkeypatch.chdir(tmp_path)
    exec("\n".join(lines))
    converted = TokenClassification.from_pretrained(tmp_path / "converted")
    assert converted.tags == expected.tags
    jax.tree.map(np.testing.assert_array_equal, converted.init(jax.random.key(1)), variables)
    assert converted.tokenizer.encode(["chest pain"]) == expected.tokenizer.encode(["chest pain"])


@pytest.mark.parametrize("name", ["tf_model.h5", "flax_model.msgpack", "model.onnx"])
def test_the_error_names_weights_of_another_framework(name, folder):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ValueError, match=f"contains {name}, weights of another framework"):
        TokenClassification.from_pretrained(folder, LABELS)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_the_error_names_a_git_lfs_pointer(name, folder):
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=f"{re.escape(name)} is a Git LFS pointer"):
        TokenClassification.from_pretrained(folder, LABELS)


def test_a_roberta_model_with_two_padding_tokens_is_refused(folder):
    edit_json(folder / "config.json", model_type="roberta", pad_token_id=1)
    message = "pads with token 0, config.json says pad_token_id 1; expected the same, since a rob"
    edit_tensors(
        folder, lambda tensors: {n.replace("bert.", "roberta."): t for n, t in tensors.items()}
    )
    with pytest.raises(ValueError, match=message):
        TokenClassification.from_pretrained(folder, LABELS)


@pytest.mark.parametrize(
    ("names", "tags", "scheme"),
    [
        (["O", "b-drug", "i-drug"], ("O", "B-drug", "I-drug"), "iob2"),
        (["o", "I-PER", "I-LOC"], ("O", "I-PER", "I-LOC"), "io"),
        (["O", "PER"], ("O", "I-PER"), "io"),
        (["B", "I", "O"], ("B-Entity", "I-Entity", "O"), "iob2"),
        (["O", "D_B", "D_I", "D_E", "D_S"], ("O", "B-D", "I-D", "E-D", "S-D"), "iobes"),
        (["O", "U-D", "B-D", "I-D", "L-D"], ("O", "U-D", "B-D", "I-D", "L-D"), "bilou"),
    ],
)
def test_tags_of_any_notation_are_read(names, tags, scheme, folder, tmp_path):
    name_classes(folder, names)
    tagger = TokenClassification.from_pretrained(folder)
    assert (tagger.tags, tagger.tagging_scheme) == (tags, scheme)
    variables = tagger.init(jax.random.key(0))
    kernel = load_file(folder / "model.safetensors")["classifier.weight"].T
    np.testing.assert_array_equal(variables["params"]["classifier"]["kernel"], kernel)
    # The saved folder has the same tags and scheme.
    (tmp_path / "saved").mkdir()
    tagger.save(tmp_path / "saved", variables)
    again = TokenClassification.from_pretrained(tmp_path / "saved")
    assert (again.tags, again.tagging_scheme) == (tags, scheme)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["LABEL_0", "LABEL_1"], r"config\.json: id2label names class 0: found the tag 'LABEL_0'"),
        (["O", "B-a", "[PAD]"], r"config\.json: id2label names class 2: found the tag '\[PAD\]'"),
        (["O", "B-a", "b-a"], "expected a different tag for each class"),
        (["O"], "expected a different tag for each class"),
    ],
)
def test_the_error_names_classes_that_are_not_tags(names, message, folder):
    name_classes(folder, names)
    with pytest.raises(ValueError, match=message + ".*labels=") as caught:
        TokenClassification.from_pretrained(folder)
    assert "to train a new classifier" in str(caught.value)
    tagger = TokenClassification.from_pretrained(folder, ["Drug"])
    assert tagger.init(jax.random.key(0))["params"]["classifier"]["bias"].shape == (3,)


def test_replacing_a_classifier_is_logged(folder, caplog):
    TokenClassification.from_pretrained(folder, LABELS)
    assert not caplog.records
    TokenClassification.from_pretrained(folder, ["Drug"])
    assert "for O, B-Problem, I-Problem, " in caplog.text
    assert "is replaced by a new one for the labels Drug" in caplog.text


def test_the_error_names_a_tag_that_the_classifier_lacks(folder):
    name_classes(folder, ["O", "B-LOC", "I-LOC", "I-PER"])
    tagger = TokenClassification.from_pretrained(folder)
    assert len(tagger.expand([Document("Paris", (Entity("LOC", 0, 5),))])) == 1
    with pytest.raises(ValueError, match=r"the data needs the tags \['B-PER'\], which"):
        tagger.expand([Document("Roe", (Entity("PER", 0, 3),))])


def test_a_checkpoint_without_a_classifier_needs_labels(folder):
    edit_tensors(folder, lambda t: {n: v for n, v in t.items() if "classifier" not in n})
    with pytest.raises(ValueError, match="is not a token classifier with named tags"):
        TokenClassification.from_pretrained(folder)
    assert len(TokenClassification.from_pretrained(folder, LABELS).tags) == 7
