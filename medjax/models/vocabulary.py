"""Vocabularies in older formats, from which `transformers` makes a tokenizer.json."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from medjax.models.files import read_json

__all__ = [
    "SETTINGS_FILE",
    "TOKENIZER_CLASSES",
    "TOKENIZER_FILE",
    "TOKENIZER_FILES",
    "TokenizerClass",
    "make_tokenizer_json",
    "tokenizer_class",
]

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
    "spm.model",
)
"""All files that a tokenizer of a supported family may consist of."""


class TokenizerClass(NamedTuple):
    """A class of tokenizers in transformers.

    Attributes
    ----------
    vocabulary : tuple of str
        The files that are needed to make one.
    model : str
        Class of its model in the package `tokenizers`.
    """

    vocabulary: tuple[str, ...]
    model: str


_WORD_PIECE = TokenizerClass(("vocab.txt",), "WordPiece")
_BYTE_LEVEL = TokenizerClass(("vocab.json", "merges.txt"), "BPE")
_SENTENCE_PIECE = TokenizerClass(("sentencepiece.bpe.model",), "Unigram")
_DEBERTA = TokenizerClass(("spm.model",), "Unigram")

TOKENIZER_CLASSES: Mapping[str, TokenizerClass] = {
    "BertTokenizer": _WORD_PIECE,
    "DistilBertTokenizer": _WORD_PIECE,
    "ElectraTokenizer": _WORD_PIECE,
    "RobertaTokenizer": _BYTE_LEVEL,
    "CamembertTokenizer": _SENTENCE_PIECE,
    "XLMRobertaTokenizer": _SENTENCE_PIECE,
    "DebertaV2Tokenizer": _DEBERTA,
}
"""The tokenizer classes of the supported families."""

_CLASS_OF_TYPE = {
    "bert": "BertTokenizer",
    "distilbert": "DistilBertTokenizer",
    "electra": "ElectraTokenizer",
    "roberta": "RobertaTokenizer",
    "camembert": "CamembertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
}


def tokenizer_class(folder: Path) -> str | None:
    """Return the class that `transformers` uses for a folder's tokenizer, without "Fast".

    Source: `AutoTokenizer.from_pretrained` in transformers 5. It uses the class named in
    tokenizer_config.json, else the one in config.json, else the one of the model's type.

    Raises
    ------
    ValueError
        If one of the two files does not contain a JSON object.
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
    """Convert a vocabulary in an older format to a tokenizer.json with `transformers`.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint.
    files : Mapping
        Names and contents of the `TOKENIZER_FILES` in the folder.

    Raises
    ------
    ValueError
        If there is no vocabulary, or transformers is not installed or cannot read it.
    """
    _check_vocabulary_files(folder, files)
    try:
        import transformers
    except ImportError as error:
        msg = (
            f"no {TOKENIZER_FILE} in {folder}; install transformers, which makes one from the "
            "vocabulary (pip install transformers sentencepiece), or use a folder that has it"
        )
        raise ValueError(msg) from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer.backend_tokenizer.to_str().encode()
    # transformers passes on any error of its converters: OSError, ImportError, AttributeError ...
    except Exception as error:
        msg = f"no {TOKENIZER_FILE} in {folder}, and transformers cannot make one: {error}"
        raise ValueError(msg) from error


def _check_vocabulary_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Raise ValueError if transformers would make a tokenizer that knows no words."""
    name = tokenizer_class(folder)
    kind = TOKENIZER_CLASSES.get(name or "")
    known = (_WORD_PIECE, _BYTE_LEVEL, _SENTENCE_PIECE, _DEBERTA)
    kinds = known if kind is None else (kind,)
    usable = [kind.vocabulary for kind in kinds]
    if not any(set(names) <= files.keys() for names in usable):
        present = sorted({*files, *(path.name for path in folder.glob("*.model"))})
        expected = ", or ".join(" with ".join(names) for names in usable)
        maker = f", from which a {name} is made" if len(kinds) == 1 else ""
        msg = (
            f"no tokenizer in {folder}: found {', '.join(present) or 'none of its files'}, "
            f"expected {TOKENIZER_FILE}, or {expected}{maker}; copy them from the checkpoint that "
            "the weights come from, or save its tokenizer to this folder: "
            f"AutoTokenizer.from_pretrained(...).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
    for text_file in sorted(files.keys() & {"vocab.txt", "vocab.json", "merges.txt"}):
        _check_text(folder / text_file, files[text_file])


def _check_text(file: Path, content: bytes) -> None:
    if content.startswith(codecs.BOM_UTF8):
        msg = (
            f"{file} starts with a byte order mark, which would become part of its first entry; "
            "save it as UTF-8 without one, or copy it again"
        )
        raise ValueError(msg)
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 ({error}); copy it again from the original checkpoint"
        raise ValueError(msg) from error
