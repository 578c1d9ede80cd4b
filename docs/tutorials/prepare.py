"""What the tutorials share: the corpora of the examples, a temporary folder and a small encoder."""

from __future__ import annotations

import atexit
import json
import os
import string
import tempfile
from pathlib import Path

import numpy as np
import tokenizers
from safetensors.numpy import load_file, save_file
from tokenizers import models, normalizers, pre_tokenizers, processors

from medjax.models import load_tokenizer, resolve_model

CORPORA = Path(__file__).resolve().parents[2] / "examples" / "data"
"""The synthetic corpora that come with the examples."""

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_WORDS = "embeddings.word_embeddings.weight"


def work_in_temporary_folder() -> None:
    """Make a folder the working directory; it is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="medjax-tutorial-")
    os.chdir(folder.name)
    atexit.register(folder.cleanup)


def write_small_minilm(folder: str | Path, nb_layers: int = 2) -> None:
    """Write the lowest layers of MiniLM with the word pieces of the corpora; it trains in seconds.

    Parameters
    ----------
    folder : str or Path
        Where to write it; it must not exist.
    nb_layers : int
        Layers to keep, of six.
    """
    whole, folder = resolve_model("minilm"), Path(folder)
    folder.mkdir()
    backend = load_tokenizer(whole).backend
    pieces = _pieces(backend)
    _write_tokenizer(folder, pieces)
    settings = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    settings |= {"num_hidden_layers": nb_layers, "vocab_size": len(pieces), "pad_token_id": 0}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    kept = tuple(f"encoder.layer.{number}." for number in range(nb_layers))
    tensors = {
        name: tensor
        for name, tensor in load_file(whole / "model.safetensors").items()
        if name.startswith(kept) or not name.startswith("encoder.layer.")
    }
    rows = [backend.token_to_id(piece) for piece in pieces]
    tensors[_WORDS] = np.ascontiguousarray(tensors[_WORDS][rows])
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _pieces(backend: tokenizers.Tokenizer) -> list[str]:
    """Return the word pieces of the corpora, and all characters for words that they lack."""
    files = [path for path in CORPORA.rglob("*") if path.suffix in (".txt", ".tsv", ".csv")]
    texts = [path.read_text(encoding="utf-8") for path in files]
    used = {token for encoding in backend.encode_batch(texts) for token in encoding.tokens}
    used |= set(string.ascii_lowercase + string.digits + string.punctuation)
    used |= {f"##{character}" for character in string.ascii_lowercase + string.digits}
    known = backend.get_vocab()
    return [*_SPECIAL, *sorted(piece for piece in used - set(_SPECIAL) if piece in known)]


def _write_tokenizer(folder: Path, pieces: list[str]) -> None:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.add_special_tokens(list(_SPECIAL))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece()
    ends = (("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    backend.post_processor = processors.BertProcessing(*ends)
    backend.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    names = {f"{name[1:-1].lower()}_token": name for name in _SPECIAL}
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
