"""The proof that the parts of a checkpoint belong together, before anything trains on it."""

from __future__ import annotations

import logging
from pathlib import Path

from medjax.models.config import ROBERTA_TYPES, EncoderConfig
from medjax.models.config_json import CONFIG_FILE
from medjax.models.huggingface import check_params
from medjax.models.tokenizer import TOKENIZER_FILE, Tokenizer

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
        If the weights are not those of the configuration, a token has no row in the embeddings,
        the padding tokens differ where positions depend on them, or the tokenizer knows no token of
        any of a dozen sentences.
    """
    check_params(folder, config)
    _check_vocabulary(folder, config, tokenizer)
    if config.model_type in ROBERTA_TYPES and tokenizer.pad_token_id != config.pad_token_id:
        msg = (
            f"the tokenizer of {folder} pads with token {tokenizer.pad_token_id}, "
            f"{CONFIG_FILE} says pad_token_id {config.pad_token_id}; expected the same, since a "
            f"{config.model_type} counts positions by it: take both from one checkpoint"
        )
        raise ValueError(msg)
    _probe(folder, tokenizer)


def _check_vocabulary(folder: Path, config: EncoderConfig, tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    token, largest = max(vocabulary.items(), key=lambda pair: pair[1], default=("", -1))
    if largest >= config.vocab_size:
        msg = (
            f"{folder / TOKENIZER_FILE} numbers tokens up to {largest} ({token!r}); the embeddings "
            f"have vocab_size = {config.vocab_size} rows ({CONFIG_FILE}). Take the tokenizer of "
            "these weights; or, for tokens that you added, enlarge the embeddings with transformers"
            " (model.resize_token_embeddings(len(tokenizer))) and save both"
        )
        raise ValueError(msg)


def _probe(folder: Path, tokenizer: Tokenizer) -> None:
    encodings = tokenizer.encode(_PROBES)
    texts = [
        [i for i, special in zip(e.ids, e.special_tokens_mask, strict=True) if not special]
        for e in encodings
    ]
    if not any(i != tokenizer.unknown_token_id for ids in texts for i in ids):
        found = "only unknown tokens" if any(texts) else "no token at all"
        msg = (
            f"the tokenizer of {folder} makes {found} of {_PROBES[0]!r} and of sentences in a dozen"
            " scripts; expected a vocabulary with words: copy the tokenizer's files again, from the"
            " checkpoint that the weights come from"
        )
        raise ValueError(msg)
    if not any(any(encoding.special_tokens_mask) for encoding in encodings):
        LOGGER.warning(
            "the tokenizer of %s puts no special tokens around a text, such as [CLS] and [SEP]; "
            "encoders of this kind are trained with them",
            folder,
        )
