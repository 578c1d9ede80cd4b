"""Vocabularies in older formats, of which `transformers` makes a tokenizer.json."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medjax.models.files import read_json

TOKENIZER_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_config.json"

TOKENIZER_FILES = (
    TOKENIZER_FILE,
    SETTINGS_FILE,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
)
"""Every file that tokenizers of the supported families consist of."""


class TokenizerClass(NamedTuple):
    """A class of tokenizers in transformers.

    Attributes
    ----------
    vocabulary : tuple of str
        Files that it can be made from, all of them.
    model : str
        Class of its model in the package `tokenizers`.
    """

    vocabulary: tuple[str, ...]
    model: str


_WORD_PIECE = TokenizerClass(("vocab.txt",), "WordPiece")
_BYTE_LEVEL = TokenizerClass(("vocab.json", "merges.txt"), "BPE")
_SENTENCE_PIECE = TokenizerClass(("sentencepiece.bpe.model",), "Unigram")

TOKENIZER_CLASSES: Mapping[str, TokenizerClass] = {
    "BertTokenizer": _WORD_PIECE,
    "DistilBertTokenizer": _WORD_PIECE,
    "RobertaTokenizer": _BYTE_LEVEL,
    "CamembertTokenizer": _SENTENCE_PIECE,
    "XLMRobertaTokenizer": _SENTENCE_PIECE,
}
"""Classes of the supported families."""

_CLASS_OF_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "roberta": "RobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}


def tokenizer_class(folder: Path) -> str | None:
    """Return the class that `transformers` takes for a folder's tokenizer, without "Fast".

    Source: `AutoTokenizer.from_pretrained` in transformers 5: the class that
    tokenizer_config.json names, then the one of config.json, then the one of the model's type.

    Raises
    ------
    ValueError
        If one of the two files holds no JSON object.
    """
    settings, config = (
        read_json(folder / name) if (folder / name).is_file() else {}
        for name in (SETTINGS_FILE, "config.json")
    )
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if isinstance(named, str):
        return named.removesuffix("Fast")
    return _CLASS_OF_TYPE.get(str(config.get("model_type")))


def make_tokenizer_json(folder: Path, files: Mapping[str, bytes]) -> bytes:
    """Let `transformers` turn a vocabulary in an older format into a tokenizer.json.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    files : Mapping
        Name and content of those of `TOKENIZER_FILES` that it has.

    Raises
    ------
    ValueError
        If there is no vocabulary, transformers is not installed or cannot read it.
    """
    _check_vocabulary_files(folder, files)
    try:
        import transformers
    except ImportError as error:
        msg = (
            f"no {TOKENIZER_FILE} in {folder}; install transformers, which makes one from the "
            "vocabulary (pip install transformers sentencepiece), or take a folder that has it"
        )
        raise ValueError(msg) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer.backend_tokenizer.to_str().encode()
    # transformers raises whatever its converters raise: OSError, ImportError, AttributeError ...
    except Exception as error:
        msg = f"no {TOKENIZER_FILE} in {folder}, and transformers cannot make one: {error}"
        raise ValueError(msg) from error


def _check_vocabulary_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Refuse a folder for which transformers would invent a tokenizer that knows no word."""
    name = tokenizer_class(folder)
    kind = TOKENIZER_CLASSES.get(name or "")
    kinds = (_WORD_PIECE, _BYTE_LEVEL, _SENTENCE_PIECE) if kind is None else (kind,)
    usable = [kind.vocabulary for kind in kinds]
    if not any(set(names) <= files.keys() for names in usable):
        found = sorted({*files, *(path.name for path in folder.glob("*.model"))})
        expected = ", or ".join(" with ".join(names) for names in usable)
        maker = f", which a {name} is made from" if len(kinds) == 1 else ""
        msg = (
            f"no tokenizer in {folder}: found {', '.join(found) or 'none of its files'}, "
            f"expected {TOKENIZER_FILE}, or {expected}{maker}; copy them from the checkpoint that "
            "the weights come from, or save its tokenizer there: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
    for text_file in sorted(files.keys() & {"vocab.txt", "vocab.json", "merges.txt"}):
        _check_text(folder / text_file, files[text_file])


def _check_text(file: Path, content: bytes) -> None:
    if content.startswith(codecs.BOM_UTF8):
        msg = (
            f"{file} starts with a byte order mark, which would be part of its first entry; save "
            "it as UTF-8 without one, or copy it again"
        )
        raise ValueError(msg)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 ({error}); copy it again from where the checkpoint came from"
        raise ValueError(msg) from error
