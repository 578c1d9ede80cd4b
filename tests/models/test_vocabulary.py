"""Vocabularies without a tokenizer.json, and settings next to one."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from medjax.models import load_tokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fièvre")
SETTINGS = "tokenizer_config.json"


@pytest.fixture
def folder(tmp_path):
    """A folder with the vocabulary of a BERT model, without a tokenizer.json."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return tmp_path


def set_type(folder, model_type):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


@pytest.mark.parametrize(
    ("model_type", "files", "expected"),
    [
        ("bert", ["vocab.json", "merges.txt"], "vocab.txt, from which a BertTokenizer"),
        ("distilbert", ["vocab.json"], "vocab.txt, from which a DistilBertTokenizer"),
        ("roberta", ["vocab.json"], "vocab.json with merges.txt, from which a RobertaTokenizer"),
        ("roberta", ["vocab.txt"], "vocab.json with merges.txt, from which a RobertaTokenizer"),
        ("camembert", ["vocab.txt"], "sentencepiece.bpe.model, from which a CamembertTokenizer"),
        ("xlm-roberta", ["spiece.model"], "sentencepiece.bpe.model, from which a XLMRobertaToken"),
        ("deberta-v2", ["vocab.txt"], "spm.model, from which a DebertaV2Tokenizer"),
    ],
)
def test_a_vocabulary_of_another_family_is_refused(model_type, files, expected, tmp_path):
    set_type(tmp_path, model_type)
    for name in files:
        (tmp_path / name).write_text("{}")
    message = f"found {', '.join(sorted(files))}, expected tokenizer.json, or {expected}"
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


def test_the_named_tokenizer_class_takes_precedence_over_the_model_type(folder):
    set_type(folder, "roberta")
    with pytest.raises(ValueError, match="from which a RobertaTokenizer is made"):
        load_tokenizer(folder)
    (folder / SETTINGS).write_text('{"tokenizer_class": "BertTokenizerFast"}')
    assert load_tokenizer(folder).encode(["fièvre"])[0].ids[0] == WORDS.index("[CLS]")


def test_a_byte_order_mark_is_refused(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8-sig")
    with pytest.raises(ValueError, match=r"vocab\.txt starts with a byte order mark"):
        load_tokenizer(folder)


def test_another_encoding_is_refused(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS), "latin-1")
    with pytest.raises(ValueError, match=r"vocab\.txt is not UTF-8 .*; copy it again"):
        load_tokenizer(folder)


def test_windows_line_endings_do_not_matter(folder):
    expected = load_tokenizer(folder).backend.get_vocab()
    (folder / "vocab.txt").write_bytes("\r\n".join(WORDS).encode())
    assert load_tokenizer(folder).backend.get_vocab() == expected


def write_tokenizer(folder):
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.enable_padding(pad_id=5, pad_token="fièvre")
    backend.save(str(folder / "tokenizer.json"))


def test_the_named_padding_token_takes_precedence_over_tokenizer_json(folder):
    write_tokenizer(folder)
    assert load_tokenizer(folder).pad_token_id == 5
    (folder / SETTINGS).write_text('{"pad_token": "[PAD]"}')
    assert load_tokenizer(folder).pad_token_id == 0


@pytest.mark.parametrize("name", [SETTINGS, "special_tokens_map.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "contains a list; expected a JSON object"),
        ('{"pad_token": 3}', "pad_token is 3; expected the token's text"),
        ('{"pad_token": {"id": 3}}', "pad_token is {'id': 3}; expected the token's text"),
    ],
)
def test_invalid_settings_files_are_refused(name, content, message, folder):
    write_tokenizer(folder)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        load_tokenizer(folder)
