"""Vocabularies without a tokenizer.json, and settings beside one."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from medjax.models import load_tokenizer

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fièvre")
SETTINGS = "tokenizer_config.json"


@pytest.fixture
def folder(tmp_path):
    """The vocabulary of a BERT, without a tokenizer.json."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return tmp_path


def set_type(folder, model_type):
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))


@pytest.mark.parametrize(
    ("model_type", "files", "expected"),
    [
        ("bert", ["vocab.json", "merges.txt"], "vocab.txt, which a BertTokenizer is"),
        ("distilbert", ["vocab.json"], "vocab.txt, which a DistilBertTokenizer is"),
        ("roberta", ["vocab.json"], "vocab.json with merges.txt, which a RobertaTokenizer is"),
        ("roberta", ["vocab.txt"], "vocab.json with merges.txt, which a RobertaTokenizer is"),
        ("camembert", ["vocab.txt"], "sentencepiece.bpe.model, which a CamembertTokenizer is"),
        ("xlm-roberta", ["spiece.model"], "sentencepiece.bpe.model, which a XLMRobertaTokenizer"),
    ],
)
def test_a_vocabulary_of_another_family(model_type, files, expected, tmp_path):
    set_type(tmp_path, model_type)
    for name in files:
        (tmp_path / name).write_text("{}")
    message = f"found {', '.join(sorted(files))}, expected tokenizer.json, or {expected}"
    with pytest.raises(ValueError, match=message):
        load_tokenizer(tmp_path)


def test_the_class_that_is_named_goes_before_the_type_of_the_model(folder):
    set_type(folder, "roberta")
    with pytest.raises(ValueError, match="which a RobertaTokenizer is made from"):
        load_tokenizer(folder)
    (folder / SETTINGS).write_text('{"tokenizer_class": "BertTokenizerFast"}')
    assert load_tokenizer(folder).encode(["fièvre"])[0].ids[0] == WORDS.index("[CLS]")


def test_a_byte_order_mark(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS), "utf-8-sig")
    with pytest.raises(ValueError, match=r"vocab\.txt starts with a byte order mark"):
        load_tokenizer(folder)


def test_another_encoding(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDS), "latin-1")
    with pytest.raises(ValueError, match=r"vocab\.txt is not UTF-8 .*; copy it again"):
        load_tokenizer(folder)


def test_line_ends_of_windows(folder):
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


def test_the_padding_token_that_is_named_goes_before_padding(folder):
    write_tokenizer(folder)
    assert load_tokenizer(folder).pad_token_id == 5
    (folder / SETTINGS).write_text('{"pad_token": "[PAD]"}')
    assert load_tokenizer(folder).pad_token_id == 0


@pytest.mark.parametrize("name", [SETTINGS, "special_tokens_map.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds a list; expected a JSON object"),
        ('{"pad_token": 3}', "pad_token is 3; expected the token's text"),
        ('{"pad_token": {"id": 3}}', "pad_token is {'id': 3}; expected the token's text"),
    ],
)
def test_files_beside_the_tokenizer(name, content, message, folder):
    write_tokenizer(folder)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=f"{name}.*{message}"):
        load_tokenizer(folder)
