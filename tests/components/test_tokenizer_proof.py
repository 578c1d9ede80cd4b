"""Tokenizers are checked: they have a vocabulary of words, and tokenise as transformers does."""

import json
import logging
import shutil
import time

import numpy as np
import pytest
import tokenizers
import transformers
from safetensors.numpy import load_file, save_file
from tokenizers import models, pre_tokenizers, processors

from medjax.components import TokenClassification
from medjax.models import load_tokenizer

LABELS = ["Problem", "Test", "Treatment"]
SETTINGS = "tokenizer_config.json"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy of the tiny tagger's folder, for tests that damage it."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def edit_json(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def resize_embeddings(folder, size):
    file, name = folder / "model.safetensors", "bert.embeddings.word_embeddings.weight"
    tensors = load_file(file)
    tensors[name] = np.resize(tensors[name], (size, tensors[name].shape[1]))
    save_file(tensors, file, metadata={"format": "pt"})
    edit_json(folder / "config.json", vocab_size=size)


def loading_error(folder):
    """Return the message of the error that loading the folder raises."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011, callers check the message
        TokenClassification.from_pretrained(folder, LABELS)
    return str(caught.value)


@pytest.mark.parametrize(
    ("model", "result"),
    [
        (
            {"type": "WordLevel", "vocab": {"[UNK]": 1}, "unk_token": "[UNK]"},
            "no words, only unknown tokens",
        ),
        ({"type": "BPE", "vocab": {"[UNK]": 1}, "merges": [], "unk_token": None}, "no tokens at"),
    ],
)
def test_a_tokenizer_that_knows_no_words_is_refused(model, result, folder):
    edit_json(folder / "tokenizer.json", model=model)
    with pytest.raises(ValueError, match=f"makes {result}.*'The patient has no fever"):
        TokenClassification.from_pretrained(folder, LABELS)


def keep_tokens(folder, is_kept):
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {token: i for token, i in vocabulary.items() if is_kept(token)}
    content["added_tokens"] = [t for t in content["added_tokens"] if is_kept(t["content"])]
    file.write_text(json.dumps(content))


def test_a_tokenizer_that_knows_only_punctuation_is_refused(folder):
    keep_tokens(folder, lambda token: token[0] == "[" or not token.strip("#").isalnum())
    message = loading_error(folder)
    assert "makes no words, only unknown tokens and punctuation, of 'The patient" in message


def test_a_vocabulary_without_the_unknown_token_is_refused(folder):
    keep_tokens(folder, lambda token: token != "[UNK]")
    message = loading_error(folder)
    assert str(folder / "tokenizer.json") in message
    assert "cannot tokenize 'The patient has no fever" in message
    assert "Missing [UNK] token" in message


def test_a_tokenizer_without_the_special_tokens_of_transformers_is_refused(folder):
    edit_json(folder / "tokenizer.json", post_processor=None)
    message = loading_error(folder)
    assert "tokenizer.json adds no special tokens to a text" in message
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("No fever")["input_ids"][0] == 2  # transformers adds [CLS], medjax would not
    assert load_tokenizer(folder).encode(["No fever"])[0].ids[0] != 2
    remedy = message[message.index("AutoTokenizer.from_pretrained") :]
    eval(remedy, {"AutoTokenizer": transformers.AutoTokenizer})
    tagger = TokenClassification.from_pretrained(folder, LABELS)
    assert tagger.tokenizer.encode(["No fever"])[0].ids == theirs("No fever")["input_ids"]


def test_missing_special_tokens_are_a_warning_if_transformers_adds_none(folder, caplog):
    edit_json(folder / "tokenizer.json", post_processor=None)
    edit_json(folder / SETTINGS, tokenizer_class="PreTrainedTokenizerFast")
    tagger = TokenClassification.from_pretrained(folder, LABELS)
    assert "adds no special tokens to a text" in caplog.text
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    assert theirs("No fever")["input_ids"] == tagger.tokenizer.encode(["No fever"])[0].ids


@pytest.mark.parametrize(
    ("normalizer", "settings", "normalized", "expected"),
    [
        ({}, {"do_lower_case": False}, "la fievre", "La Fièvre"),
        ({"lowercase": False}, {}, "La Fièvre", "la fievre"),
        ({"strip_accents": False}, {"do_lower_case": True}, "la fièvre", "la fievre"),
        ({}, {"strip_accents": False}, "la fievre", "la fièvre"),
        (None, {"do_lower_case": True}, "La Fièvre", "la fievre"),
    ],
)
def test_contradicting_case_and_accents_are_refused(
    normalizer, settings, normalized, expected, folder
):
    content = json.loads((folder / "tokenizer.json").read_text())
    normalizer = None if normalizer is None else content["normalizer"] | normalizer
    edit_json(folder / "tokenizer.json", normalizer=normalizer)
    edit_json(folder / SETTINGS, **settings)
    theirs = transformers.AutoTokenizer.from_pretrained(folder).backend_tokenizer.normalizer
    assert theirs.normalize_str("La Fièvre") == expected
    message = loading_error(folder)
    assert f"tokenizer.json reads 'La Fièvre' as '{normalized}', but by " in message
    assert f"which makes it '{expected}'; expected the same" in message


@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("lowers", [True, False])
def test_consistent_settings_are_accepted(lowers, accents, folder, caplog):
    content = json.loads((folder / "tokenizer.json").read_text())
    normalizer = content["normalizer"] | {"lowercase": lowers, "strip_accents": accents}
    edit_json(folder / "tokenizer.json", normalizer=normalizer)
    edit_json(folder / SETTINGS, do_lower_case=lowers, strip_accents=accents)
    TokenClassification.from_pretrained(folder, LABELS)
    assert not caplog.records


def test_a_tokenizer_of_another_class_is_logged(folder, caplog):
    edit_json(folder / SETTINGS, tokenizer_class="RobertaTokenizerFast")
    TokenClassification.from_pretrained(folder, LABELS)
    assert (
        "is a WordPiece model, and the configuration names RobertaTokenizer, a BPE" in caplog.text
    )


@pytest.mark.parametrize(("spare", "warns"), [(0, False), (20, False), (500, True)])
def test_a_vocabulary_much_smaller_than_the_embeddings_is_logged(spare, warns, folder, caplog):
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    resize_embeddings(folder, size + spare)
    TokenClassification.from_pretrained(folder, LABELS)
    warning = f"has {size} tokens, the embeddings have vocab_size = {size + spare} rows"
    assert (warning in caplog.text) == warns


@pytest.mark.parametrize("labels", ["Drug", [], ()])
def test_labels_must_be_a_list_that_is_not_empty(labels, folder):
    with pytest.raises(ValueError, match="expected kinds of entities"):
        TokenClassification.from_pretrained(folder, labels)


def test_the_error_names_the_file_with_tags_of_two_schemes(folder):
    names = ("O", "B-a", "E-a", "L-a", "U-a", "B-b", "I-b")
    edit_json(folder / "config.json", id2label=dict(enumerate(names)))
    with pytest.raises(
        ValueError, match=r"config\.json: id2label: .* follow no tagging scheme.*labels="
    ):
        TokenClassification.from_pretrained(folder)


def test_checking_a_large_vocabulary_is_fast(folder, caplog):
    """Times all checks, without loading; XLM-R has 250,002 tokens."""
    size = 250_000
    special = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "no": 4}
    vocabulary = special | {f"word{number}": number for number in range(5, size)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = tokenizers.normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.save(str(folder / "tokenizer.json"))
    resize_embeddings(folder, size)
    begin = time.perf_counter()
    load_tokenizer(folder)
    loading = time.perf_counter() - begin
    with caplog.at_level(logging.WARNING):
        TokenClassification.from_pretrained(folder, LABELS)
    assert not caplog.records
    # It takes well under a second; five allow for a busy machine.
    assert time.perf_counter() - begin - 2 * loading < 5
