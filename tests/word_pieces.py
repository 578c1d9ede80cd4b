"""A WordPiece tokenizer of a few texts, in a folder as transformers writes it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 6
"""Letters of the first piece of a word; the others are the second piece."""


def write_tokenizer(folder: Path, texts: Iterable[str]) -> int:
    """Write a tokenizer that knows the words of these texts, and return its number of pieces.

    Other words of the same letters are spelled. A trained tokenizer would differ from process to
    process: the trainer breaks ties at random.
    """
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces = set()
    for text in texts:
        normal = backend.normalizer.normalize_str(text)
        for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal):
            pieces |= {word[:LONGEST], "##" + word[LONGEST:]}
            pieces |= {prefix + letter for letter in word for prefix in ("", "##")}
    vocabulary = {piece: n for n, piece in enumerate(SPECIAL + sorted(pieces - {"##"}))}
    backend.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    backend.add_special_tokens(SPECIAL)
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(vocabulary)
