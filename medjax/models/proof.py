"""The proof that the parts of a checkpoint belong together, before anything trains on it."""

from __future__ import annotations

import logging
from pathlib import Path

from medjax.models.config import ROBERTA_TYPES, EncoderConfig
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json
from medjax.models.huggingface import check_params
from medjax.models.tokenizer import Encoding, Tokenizer
from medjax.models.vocabulary import (
    SETTINGS_FILE,
    TOKENIZER_CLASSES,
    TOKENIZER_FILE,
    tokenizer_class,
)

LOGGER = logging.getLogger("medjax")

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
"""A sentence in each of many scripts, of which a tokenizer must know some token."""

_CASES = "La Fièvre"
_UNUSED = 0.1  # share of the embeddings' rows above which the tokenizer may be another model's


def prove_folder(folder: Path, config: EncoderConfig, tokenizer: Tokenizer) -> None:
    """Refuse a checkpoint whose weights, configuration and tokenizer do not fit together.

    Parameters
    ----------
    folder : Path
        The checkpoint, for its weights and for messages.
    config : EncoderConfig
        Its configuration.
    tokenizer : Tokenizer
        Its tokenizer.

    Raises
    ------
    ValueError
        If the weights are not those of the configuration; a token has no row in the embeddings;
        the padding tokens differ where positions depend on them; the tokenizer knows no word of a
        dozen sentences; or transformers would put special tokens around a text, or write its
        letters, where this tokenizer does not.
    """
    check_params(folder, config)
    nb_tokens = _check_vocabulary(folder, config, tokenizer)
    if config.model_type in ROBERTA_TYPES and tokenizer.pad_token_id != config.pad_token_id:
        msg = (
            f"the tokenizer of {folder} pads with token {tokenizer.pad_token_id}, "
            f"{CONFIG_FILE} says pad_token_id {config.pad_token_id}; expected the same, since a "
            f"{config.model_type} counts positions by it: take both from one checkpoint"
        )
        raise ValueError(msg)
    encodings = _probe(folder, tokenizer)
    if nb_tokens < (1 - _UNUSED) * config.vocab_size:
        LOGGER.warning(
            f"the tokenizer of {folder} has {nb_tokens} tokens, the embeddings have vocab_size = "
            f"{config.vocab_size} rows ({CONFIG_FILE}); make sure that it is the tokenizer of "
            "these weights"
        )
    kind = _check_class(folder, tokenizer)
    _check_special_tokens(folder, kind, encodings)
    if kind is not None and TOKENIZER_CLASSES[kind].model == "WordPiece":
        _check_letters(folder, tokenizer)


def _check_class(folder: Path, tokenizer: Tokenizer) -> str | None:
    """Return the family's tokenizer class that a folder's tokenizer is of, None for others."""
    kind = tokenizer_class(folder)
    if kind is None or kind not in TOKENIZER_CLASSES:
        return None
    found, expected = type(tokenizer.backend.model).__name__, TOKENIZER_CLASSES[kind].model
    if found == expected:
        return kind
    LOGGER.warning(
        f"{_source(folder)} is a {found} model, and the configuration names {kind}, a {expected} "
        f"model; medjax takes {TOKENIZER_FILE} as it is, transformers may not"
    )
    return None


def _source(folder: Path) -> Path:
    return folder / TOKENIZER_FILE if (folder / TOKENIZER_FILE).is_file() else folder


def _check_vocabulary(folder: Path, config: EncoderConfig, tokenizer: Tokenizer) -> int:
    """Return the number of tokens; ValueError if one of them has no row in the embeddings."""
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    token, largest = max(vocabulary.items(), key=lambda pair: pair[1], default=("", -1))
    if largest >= config.vocab_size:
        msg = (
            f"{_source(folder)} numbers tokens up to {largest} ({token!r}); the embeddings "
            f"have vocab_size = {config.vocab_size} rows ({CONFIG_FILE}). Take the tokenizer of "
            "these weights; or, for tokens that you added, enlarge the embeddings with transformers"
            " (model.resize_token_embeddings(len(tokenizer))) and save both"
        )
        raise ValueError(msg)
    return len(vocabulary)


def _probe(folder: Path, tokenizer: Tokenizer) -> list[Encoding]:
    """Return the encoded probes; ValueError if no word of them is known."""
    advice = "copy the tokenizer's files again, from the checkpoint that the weights come from"
    try:
        encodings = tokenizer.encode(_PROBES)
    # The package raises bare Exceptions, as where the unknown token is not in the vocabulary.
    except Exception as error:
        msg = f"{_source(folder)} cannot tokenize {_PROBES[0]!r} ({error}); {advice}"
        raise ValueError(msg) from error
    tokens = [
        (token_id, any(map(str.isalnum, text[slice(*place)])))
        for text, found in zip(_PROBES, encodings, strict=True)
        for token_id, place, special in zip(
            found.ids, found.offsets, found.special_tokens_mask, strict=True
        )
        if not special
    ]
    if not any(has_letter and i != tokenizer.unknown_token_id for i, has_letter in tokens):
        found = "no word, only unknown tokens and punctuation," if tokens else "no token at all"
        msg = (
            f"the tokenizer of {folder} makes {found} of {_PROBES[0]!r} and of sentences in a dozen"
            f" scripts; expected a vocabulary with words: {advice}"
        )
        raise ValueError(msg)
    return encodings


def _check_special_tokens(folder: Path, kind: str | None, encodings: list[Encoding]) -> None:
    if any(any(encoding.special_tokens_mask) for encoding in encodings):
        return
    found = f"{_source(folder)} puts no special tokens around a text, such as [CLS] and [SEP]"
    if kind is not None:
        msg = (
            f"{found}: it has no post_processor; expected them, since transformers adds them for a "
            f"{kind}: write the file anew with transformers 5, "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
    # Nor does transformers, for a class that is no family's own; the model may be trained so.
    LOGGER.warning(f"{found}; encoders of this kind are trained with them")


def _check_letters(folder: Path, tokenizer: Tokenizer) -> None:
    """Refuse settings of case and accents that say otherwise than the tokenizer itself.

    Source: `BertTokenizer` in transformers 5 and `BertTokenizerFast` in 4, which go by the
    settings, and lower the case where they are silent.
    """
    from tokenizers.normalizers import BertNormalizer

    file = folder / SETTINGS_FILE
    settings = read_json(file) if file.is_file() else {}
    lowers, strips = settings.get("do_lower_case", True), settings.get("strip_accents")
    by_settings = BertNormalizer(
        lowercase=bool(lowers), strip_accents=None if strips is None else bool(strips)
    )
    expected = by_settings.normalize_str(_CASES)
    normalizer = tokenizer.backend.normalizer
    found = _CASES if normalizer is None else normalizer.normalize_str(_CASES)
    if found != expected:
        msg = (
            f"{_source(folder)} reads {_CASES!r} as {found!r}, and {file} with do_lower_case "
            f"{lowers} and strip_accents {strips} as {expected!r}, which transformers goes by; "
            f"expected the same: if {TOKENIZER_FILE} is right, set both in {SETTINGS_FILE}; if "
            "not, write it anew with transformers 5, "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
        raise ValueError(msg)
