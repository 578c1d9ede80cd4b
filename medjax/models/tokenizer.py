"""Load and use tokenizers of Hugging Face checkpoints, by way of the package `tokenizers`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from medjax.models.files import check_downloaded, check_ordinary, read_json
from medjax.models.vocabulary import (
    SETTINGS_FILE,
    TOKENIZER_FILE,
    TOKENIZER_FILES,
    make_tokenizer_json,
)

if TYPE_CHECKING:
    import tokenizers


__all__ = ["Encoding", "Tokenizer", "load_tokenizer"]


class Encoding(NamedTuple):
    """A tokenized text; every list has one entry per token.

    Attributes
    ----------
    ids : list of int
        Token ids, that is, rows of the word embeddings.
    offsets : list of (int, int)
        Start and end of the token in the text, in characters (Unicode code points), `end`
        exclusive; (0, 0) for special tokens.
    word_ids : list of (int or None)
        Number of the token's word, as the pre-tokenizer splits words; None for special tokens.
    special_tokens_mask : list of int
        1 for tokens that the tokenizer added, 0 for those of the text.

    Examples
    --------
    >>> encoding = Encoding([2, 7, 3], [(0, 0), (0, 5), (0, 0)], [None, 0, None], [1, 0, 1])
    >>> [i for i, special in zip(encoding.ids, encoding.special_tokens_mask) if not special]
    [7]
    """

    ids: list[int]
    offsets: list[tuple[int, int]]
    word_ids: list[int | None]
    special_tokens_mask: list[int]


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """A checkpoint's tokenizer with its files; usually made by `load_tokenizer`.

    It can be pickled, for worker processes, even if its folder no longer exists.

    Attributes
    ----------
    backend : tokenizers.Tokenizer
        The tokenizer itself. It neither truncates nor pads, and is never modified, so that threads
        can share it.
    pad_token_id : int
        Token to pad short rows with.
    unknown_token_id : int or None
        Token for text that is not in the vocabulary; None if any text can be encoded.
    files : Mapping
        Names and contents of the tokenizer's files, as `save` writes them.

    Examples
    --------
    >>> import tokenizers
    >>> vocabulary = {"[PAD]": 0, "[UNK]": 1, "no": 2, "fever": 3}
    >>> backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    >>> backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    >>> tokenizer = Tokenizer(backend, pad_token_id=0, unknown_token_id=1, files={})
    >>> tokenizer.encode(["no fever"])[0].ids
    [2, 3]
    """

    backend: tokenizers.Tokenizer = dataclasses.field(repr=False)
    pad_token_id: int
    unknown_token_id: int | None
    files: Mapping[str, bytes] = dataclasses.field(repr=False)

    def encode(self, texts: Sequence[str], max_length: int | None = None) -> list[Encoding]:
        """Tokenize texts, without padding.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        max_length : int, optional
            Largest number of tokens, special tokens included; the end of longer texts is cut off.
            By default nothing is cut off.

        Returns
        -------
        list of Encoding
            One for each text.

        Raises
        ------
        ValueError
            If `texts` is a single string, or `max_length` leaves no room for the text.
        """
        if isinstance(texts, str):
            msg = f"texts is the string {texts[:40]!r}; expected a list of texts: [{texts[:40]!r}]"
            raise ValueError(msg)
        encodings = [
            Encoding(row.ids, row.offsets, row.word_ids, row.special_tokens_mask)
            for row in self.backend.encode_batch(list(texts))
        ]
        if max_length is None:
            return encodings
        nb_special = self.backend.num_special_tokens_to_add(is_pair=False)
        if max_length <= nb_special:
            msg = f"max_length is {max_length}; expected more than {nb_special}, the special tokens"
            raise ValueError(msg)
        # Not truncated by the backend, as its truncation is a setting that all users share.
        return [_cut_off(encoding, max_length) for encoding in encodings]

    def save(self, folder: Path | str) -> None:
        """Write the tokenizer's files, byte for byte as they were read.

        Parameters
        ----------
        folder : Path or str
            Where to write them; created if it does not exist.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)


def _cut_off(encoding: Encoding, max_length: int) -> Encoding:
    """Return an encoding of at most `max_length` tokens that keeps its final special tokens."""
    excess = len(encoding.ids) - max_length
    if excess <= 0:
        return encoding
    stop = len(encoding.ids)
    while stop > 0 and encoding.special_tokens_mask[stop - 1]:
        stop -= 1
    return Encoding._make(column[: stop - excess] + column[stop:] for column in encoding)


def _pad_token_id(backend: tokenizers.Tokenizer, folder: Path) -> int:
    # As in transformers, the token that a file names takes precedence over tokenizer.json.
    named = [
        _token_named(folder / name, "pad_token")
        for name in (SETTINGS_FILE, "special_tokens_map.json")
    ]
    padding = [] if backend.padding is None else [backend.padding["pad_token"]]
    # The last two are the names that the supported families use.
    for text in (*named, *padding, "[PAD]", "<pad>"):
        token_id = None if text is None else backend.token_to_id(text)
        if token_id is not None:
            return token_id
    msg = f"the tokenizer of {folder} names no padding token; set pad_token in {SETTINGS_FILE}"
    raise ValueError(msg)


def _token_named(file: Path, field: str) -> str | None:
    """Return the special token that a file names, or None if it names none."""
    token = read_json(file).get(field) if file.is_file() else None
    text = token.get("content") if isinstance(token, dict) else token
    if token is not None and not isinstance(text, str):
        msg = f"{file}: {field} is {token!r:.80}; expected the token's text, such as '[PAD]'"
        raise ValueError(msg)
    return text


def _unknown_token_id(backend: tokenizers.Tokenizer, content: bytes) -> int | None:
    model = json.loads(content)["model"]
    if model.get("unk_id") is not None:  # Unigram models store its number
        return int(model["unk_id"])
    unknown = model.get("unk_token")
    return None if unknown is None else backend.token_to_id(unknown)


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """Load the tokenizer of a checkpoint.

    Truncation and padding, which `tokenizer.json` may request, are switched off.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint. If it has no `tokenizer.json`, `transformers` makes one from the
        vocabulary, if it is installed.

    Raises
    ------
    ImportError
        If the package `tokenizers` is not installed.
    ValueError
        If there is no usable tokenizer in the folder.

    Examples
    --------
    >>> import tempfile, tokenizers
    >>> backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[PAD]": 0, "no": 1}))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     backend.save(f"{folder}/tokenizer.json")
    ...     load_tokenizer(folder).encode(["no"])[0].ids
    [1]
    """
    try:
        import tokenizers
    except ImportError as error:
        msg = "tokenizing text needs the package tokenizers: pip install 'medjax[text]'"
        raise ImportError(msg) from error
    folder = Path(folder)
    check_ordinary(folder)  # all files, as transformers may open any of them
    files = {
        name: (folder / name).read_bytes() for name in TOKENIZER_FILES if (folder / name).is_file()
    }
    for name in files:
        check_downloaded(folder / name)
    if TOKENIZER_FILE not in files:
        files[TOKENIZER_FILE] = make_tokenizer_json(folder, files)
    try:
        backend = tokenizers.Tokenizer.from_buffer(files[TOKENIZER_FILE])
    # The package raises bare Exceptions.
    except Exception as error:
        msg = f"cannot read {folder / TOKENIZER_FILE} ({error}); copy the checkpoint again"
        raise ValueError(msg) from error
    pad_token_id = _pad_token_id(backend, folder)
    backend.no_truncation()
    backend.no_padding()
    unknown_token_id = _unknown_token_id(backend, files[TOKENIZER_FILE])
    return Tokenizer(backend, pad_token_id, unknown_token_id, files)
