"""Check before training that the parts of a checkpoint belong together."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from medjax.models.config import EncoderConfig
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json
from medjax.models.huggingface import check_params
from medjax.models.tasks import TOKEN_CLASSIFICATION, Task
from medjax.models.tokenizer import Encoding, Tokenizer
from medjax.models.vocabulary import (
    SETTINGS_FILE,
    TOKENIZER_CLASSES,
    TOKENIZER_FILE,
    tokenizer_class,
)

__all__ = ["prove_folder"]

_LOGGER = logging.getLogger("medjax")

_PROBES = (
    "The patient has no fever, pain or cough.",
    "Le patient a de la fièvre et une douleur.",
    "El paciente tiene fiebre y dolor.",
    "Der Patient hat Fieber und Schmerzen.",
    "πυρετός και πόνος",
    "жар, боль, кашель",
    "المريض يعاني من الحمى.",
    "לחולה יש חום.",
    "患者有发热和疼痛。",
    "患者は熱があります。",
    "환자는 열이 있습니다.",
    "रोगी को बुखार है।",
    "ผู้ป่วยมีไข้",
)
"""Sentences in many languages and scripts; a tokenizer must know a word of at least one."""

_CASES = "La Fièvre"
_WORD = "fever"
_SPACES = {
    "RobertaTokenizer": ("Ġ", False),
    "CamembertTokenizer": ("▁", True),
    "XLMRobertaTokenizer": ("▁", True),
}
"""The sign for a space, and whether transformers adds one before a text without a setting."""

_UNUSED = 0.1  # share of unused embeddings above which the tokenizer may be that of another model


def prove_folder(
    folder: Path,
    config: EncoderConfig,
    tokenizer: Tokenizer,
    task: Task = TOKEN_CLASSIFICATION,
) -> None:
    """Raise an error if a checkpoint's weights, configuration and tokenizer do not fit together.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoint, for its weights and for messages.
    config : EncoderConfig
        Its configuration.
    tokenizer : Tokenizer
        Its tokenizer.
    task : Task
        What its weights are read for.

    Raises
    ------
    ValueError
        If the weights do not match the configuration; a token has no row in the embeddings; the
        padding tokens differ and positions depend on them; the tokenizer knows no word of a dozen
        sentences; or the tokenizer adds no special tokens, normalises case and accents
        differently, or adds another space before a text, where transformers would.
    """
    check_params(folder, config, task)
    nb_tokens = _check_vocabulary(folder, config, tokenizer)
    if config.numbers_positions_by_padding and tokenizer.pad_token_id != config.pad_token_id:
        msg = (
            f"the tokenizer of {folder} pads with token {tokenizer.pad_token_id}, "
            f"{CONFIG_FILE} says pad_token_id {config.pad_token_id}; expected the same, since a "
            f"{config.model_type} model numbers positions by it: use both from the same checkpoint"
        )
        raise ValueError(msg)
    encodings = _probe(folder, tokenizer)
    if nb_tokens < (1 - _UNUSED) * config.vocab_size:
        _LOGGER.warning(
            f"the tokenizer of {folder} has {nb_tokens} tokens, the embeddings have vocab_size = "
            f"{config.vocab_size} rows ({CONFIG_FILE}); make sure that it is the tokenizer of "
            "these weights"
        )
    kind = _check_class(folder, tokenizer)
    _check_special_tokens(folder, kind, encodings)
    if kind is not None and TOKENIZER_CLASSES[kind].model == "WordPiece":
        _check_letters(folder, tokenizer)
    if kind == "DebertaV2Tokenizer":
        _check_case(folder, tokenizer)
    if kind in _SPACES:
        _check_prefix_space(folder, tokenizer, *_SPACES[kind])


def _check_class(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return the tokenizer's class in transformers; None if unsupported or of another kind."""
    kind = tokenizer_class(folder)
    if kind is None or kind not in TOKENIZER_CLASSES:
        return None
    model, expected = type(tokenizer.backend.model).__name__, TOKENIZER_CLASSES[kind].model
    if model == expected:
        return kind
    _LOGGER.warning(
        f"{_source(folder)} is a {model} model, and the configuration names {kind}, a {expected} "
        f"model; medjax uses {TOKENIZER_FILE} as it is, transformers may not"
    )
    return None


def _source(folder: Path) -> Path:
    return folder / TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else folder


def _check_vocabulary(folder: Path, config: EncoderConfig, tokenizer: Tokenizer) -> int:
    """Return the number of tokens; raise ValueError if one has no row in the embeddings."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    token, largest = max(vocabulary.items(), key=lambda pair: pair[1], default=("", -1))
    if largest >= config.vocab_size:
        msg = (
            f"{_source(folder)} numbers tokens up to {largest} ({token!r}); the embeddings "
            f"have vocab_size = {config.vocab_size} rows ({CONFIG_FILE}). Use the tokenizer of "
            "these weights; or, if you added tokens, enlarge the embeddings with transformers "
            "(model.resize_token_embeddings(len(tokenizer))) and save both"
        )
        raise ValueError(msg)
    return len(vocabulary)


def _probe(folder: Path, tokenizer: Tokenizer) -> list[Encoding]:
    """Return the encoded probes; raise ValueError if the tokenizer knows none of their words."""
    advice = "copy the tokenizer's files again, from the checkpoint that the weights come from"
    try:
        encodings = tokenizer.encode(_PROBES)
    # The package raises bare Exceptions, for instance if the vocabulary lacks the unknown token.
    except Exception as error:
        msg = f"{_source(folder)} cannot tokenize {_PROBES[0]!r} ({error}); {advice}"
        raise ValueError(msg) from error
    tokens = [
        (token_id, any(map(str.isalnum, text[start:end])))
        for text, encoding in zip(_PROBES, encodings, strict=True)
        for token_id, (start, end), special in zip(
            encoding.ids, encoding.offsets, encoding.special_tokens_mask, strict=True
        )
        if not special
    ]
    if not any(has_letter and i != tokenizer.unknown_token_id for i, has_letter in tokens):
        result = "no words, only unknown tokens and punctuation," if tokens else "no tokens at all"
        msg = (
            f"the tokenizer of {folder} makes {result} of {_PROBES[0]!r} and of sentences in a "
            f"dozen scripts; expected a vocabulary with words: {advice}"
        )
        raise ValueError(msg)
    return encodings


def _check_special_tokens(folder: Path, kind: str | None, encodings: list[Encoding]) -> None:
    if any(any(encoding.special_tokens_mask) for encoding in encodings):
        return
    problem = f"{_source(folder)} adds no special tokens to a text, such as [CLS] and [SEP]"
    if kind is not None:
        msg = (
            f"{problem}: it has no post_processor; expected them, since transformers adds them for "
            f"a {kind}: write the file again with transformers 5, "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
    # transformers adds none either for other classes; the model may have been trained like that.
    _LOGGER.warning(f"{problem}; encoders of this kind are trained with them")


def _check_letters(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise ValueError if the settings of case and accents contradict the tokenizer itself.

    Source: `BertTokenizer` in transformers 5 and `BertTokenizerFast` in 4, which follow the
    settings, and convert to lower case if there is no setting.
    """
    from tokenizers.normalizers import BertNormalizer

    file, settings = _settings(folder)
    lowers, strips = settings.get("do_lower_case", True), settings.get("strip_accents")
    by_settings = BertNormalizer(
        lowercase=bool(lowers), strip_accents=None if strips is None else bool(strips)
    )
    expected = by_settings.normalize_str(_CASES)
    normalized = _normalized(tokenizer)
    if normalized != expected:
        msg = (
            f"{_source(folder)} reads {_CASES!r} as {normalized!r}, but by {file}, which "
            f"transformers follows, do_lower_case is {lowers} and strip_accents {strips}, which "
            f"makes it {expected!r}; expected the same: if {TOKENIZER_FILE} is right, set both in "
            f"{SETTINGS_FILE}; if not, write it again with transformers 5, "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)


def _settings(folder: Path) -> tuple[Path, dict[str, Any]]:
    file = folder / SETTINGS_FILE
    return file, read_json(file) if file.is_file() else {}


def _normalized(tokenizer: Tokenizer) -> str:
    normalizer = tokenizer.backend.normalizer
    return _CASES if normalizer is None else str(normalizer.normalize_str(_CASES))


def _check_case(folder: Path, tokenizer: Tokenizer) -> None:
    """Raise ValueError if the setting of case contradicts DeBERTa's tokenizer itself.

    Source: `DebertaV2Tokenizer` in transformers 5, which follows the setting, keeps the case if
    there is none, and never has the character map of a SentencePiece model.
    """
    file, settings = _settings(folder)
    lowers, normalized = bool(settings.get("do_lower_case", False)), _normalized(tokenizer)
    if normalized.islower() != lowers:
        msg = (
            f"{_source(folder)} reads {_CASES!r} as {normalized!r}, but by {file}, which "
            f"transformers follows, do_lower_case is {lowers}; expected the same: if "
            f"{TOKENIZER_FILE} is right, set it in {SETTINGS_FILE}"
        )
        raise ValueError(msg)
    if not (folder / TOKENIZER_FILE).is_file():
        _LOGGER.warning(
            f"transformers has made the tokenizer of {folder} from spm.model, without its map of "
            "characters (such as ½, ² and µ to others); the model may know them by those only. A "
            f"{TOKENIZER_FILE} that transformers 4 has written has the map"
        )


def _check_prefix_space(folder: Path, tokenizer: Tokenizer, space: str, default: bool) -> None:
    """Raise ValueError if the setting of a first space contradicts the tokenizer itself.

    Source: `RobertaTokenizer`, `CamembertTokenizer` and `XLMRobertaTokenizer` in transformers 5,
    which follow the setting.
    """
    file, settings = _settings(folder)
    backend, text = tokenizer.backend, _WORD
    if backend.normalizer is not None:
        text = backend.normalizer.normalize_str(text)
    if backend.pre_tokenizer is not None:
        text = "".join(piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    added, setting = text.startswith(space), settings.get("add_prefix_space", default)
    if added != bool(setting):
        msg = (
            f"{_source(folder)} adds {'a' if added else 'no'} space before a text, but by {file}, "
            f"which transformers follows, add_prefix_space is {setting}; expected the same: if "
            f"{TOKENIZER_FILE} is right, set it in {SETTINGS_FILE}; if not, write it again with "
            f"transformers 5, AutoTokenizer.from_pretrained({str(folder)!r})"
            f".save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
