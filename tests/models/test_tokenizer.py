"""Tokenizers: offsets, truncation, and folders that transformers loads."""

import json
import pickle
import sys

import numpy as np
import pytest
import tokenizers
import transformers
from tokenizers import models, normalizers, pre_tokenizers, processors

from medjax.models import load_tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fever", "##ish", "no", "co", "##ugh", "."]


@pytest.fixture
def folder(tmp_path):
    """A WordPiece tokenizer whose file requests truncation and padding, as MiniLM's does."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(WORDS[:5])
    backend.enable_truncation(4)
    backend.enable_padding(length=4)
    source = tmp_path / "source"
    source.mkdir()
    backend.save(str(source / "tokenizer.json"))
    (source / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "pad_token": "[PAD]"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    return source


def test_encodings_have_ids_offsets_and_words(folder):
    tokenizer = load_tokenizer(folder)
    first, second = tokenizer.encode(["No feverish cough.", "é 😀 fever"])
    assert first.ids == [2, 7, 5, 6, 8, 9, 10, 3]
    assert first.offsets == [(0, 0), (0, 2), (3, 8), (8, 11), (12, 14), (14, 17), (17, 18), (0, 0)]
    assert first.word_ids == [None, 0, 1, 1, 2, 2, 3, None]
    assert first.special_tokens_mask == [1, 0, 0, 0, 0, 0, 0, 1]
    assert second.offsets[1:4] == [(0, 1), (2, 3), (4, 9)]
    assert tokenizer.pad_token_id == 0


def test_each_call_truncates_to_its_own_length(folder):
    tokenizer = load_tokenizer(folder)
    text = "no fever no cough"
    for max_length, nb_tokens in ((3, 3), (5, 5), (None, 7), (100, 7)):
        (encoding,) = tokenizer.encode([text], max_length)
        assert len(encoding.ids) == nb_tokens
        assert encoding.ids[-1] == 3
    with pytest.raises(ValueError, match="max_length is 2; expected more than 2"):
        tokenizer.encode([text], 2)


def test_a_single_string_is_refused(folder):
    with pytest.raises(ValueError, match="expected a list of texts"):
        load_tokenizer(folder).encode("no fever")


def test_a_pickled_tokenizer_does_not_need_its_folder(folder):
    pickled = pickle.dumps(load_tokenizer(folder))
    for file in folder.iterdir():
        file.unlink()
    tokenizer = pickle.loads(pickled)
    tokenizer.save(folder)
    assert tokenizer.encode(["fever"]) == load_tokenizer(folder).encode(["fever"])


def test_saved_files_are_the_same_and_transformers_loads_them(folder, tmp_path):
    load_tokenizer(folder).save(tmp_path / "saved")
    saved = {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()}
    assert saved == {file.name: file.read_bytes() for file in folder.iterdir()}
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "No feverish cough."
    (ours,) = load_tokenizer(tmp_path / "saved").encode([text])
    expected = theirs(text, return_offsets_mapping=True)
    assert expected["input_ids"] == ours.ids
    np.testing.assert_array_equal(expected["offset_mapping"], ours.offsets)


def test_a_vocabulary_without_tokenizer_json_is_converted(folder, tmp_path):
    expected = load_tokenizer(folder).encode(["No feverish cough."])
    (folder / "tokenizer.json").unlink()
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(["No feverish cough."]) == expected
    tokenizer.save(tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    "files",
    [
        {"special_tokens_map.json": {"pad_token": {"content": "[MASK]"}}},
        {"tokenizer_config.json": {"pad_token": "[MASK]"}},
    ],
)
def test_the_padding_token_is_the_one_that_the_files_name(folder, files):
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    backend.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").unlink()
    assert load_tokenizer(folder).pad_token_id == 0
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    assert load_tokenizer(folder).pad_token_id == 4


def test_a_tokenizer_without_a_padding_token_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="names no padding token"):
        load_tokenizer(tmp_path)


def test_the_error_names_a_damaged_file(folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot read .*tokenizer\.json"):
        load_tokenizer(folder)


def test_the_error_names_missing_packages(folder, monkeypatch):
    (folder / "tokenizer.json").unlink()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        with pytest.raises(ValueError, match="install transformers"):
            load_tokenizer(folder)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"medjax\[text\]"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("files", "present"),
    [
        ([], "none of its files"),
        (["tokenizer_config.json"], "tokenizer_config.json"),
        (["vocab.json", "special_tokens_map.json"], "special_tokens_map.json, vocab.json"),
    ],
)
def test_a_folder_without_a_vocabulary_is_refused(files, present, tmp_path):
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(
        ValueError, match=f"no tokenizer in .*: found {present}, expected tokenizer.j"
    ):
        load_tokenizer(tmp_path)


def test_a_vocabulary_that_transformers_cannot_read_is_refused(tmp_path):
    (tmp_path / "sentencepiece.bpe.model").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="transformers cannot make one"):
        load_tokenizer(tmp_path)


def test_a_git_lfs_pointer_is_refused(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    with pytest.raises(ValueError, match=r"tokenizer\.json is a Git LFS pointer.*git lfs pull"):
        load_tokenizer(folder)
