"""What the tutorials share: the corpora of the examples, a temporary folder and a small encoder."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

from safetensors.numpy import load_file, save_file

from medjax.models import resolve_model

CORPORA = Path(__file__).resolve().parents[2] / "examples" / "data"
"""The synthetic corpora that come with the examples."""


def work_in_temporary_folder() -> None:
    """Make a folder the working directory; it is removed when the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="medjax-tutorial-")
    os.chdir(folder.name)
    atexit.register(folder.cleanup)


def write_short_minilm(folder: str | Path, nb_layers: int = 2) -> None:
    """Write a copy of MiniLM with its lowest layers only, which trains in seconds.

    Parameters
    ----------
    folder : str or Path
        Where to write it; it must not exist.
    nb_layers : int
        Layers to keep, of six.
    """
    whole, folder = resolve_model("minilm"), Path(folder)
    shutil.copytree(whole, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    settings = json.loads((whole / "config.json").read_text(encoding="utf-8"))
    settings["num_hidden_layers"] = nb_layers
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    kept = tuple(f"encoder.layer.{number}." for number in range(nb_layers))
    tensors = {
        name: tensor
        for name, tensor in load_file(whole / "model.safetensors").items()
        if name.startswith(kept) or not name.startswith("encoder.layer.")
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
