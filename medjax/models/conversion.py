"""Instructions for converting checkpoints with pickled weights, which are never loaded."""

from __future__ import annotations

from pathlib import Path

from medjax.models.families import FAMILIES
from medjax.models.files import read_json

__all__ = ["conversion_advice"]

_TASK = "ForTokenClassification"
_TASKS = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    _TASK,
)
"""Suffixes of the classes that transformers has for every supported family."""


def conversion_advice(source: Path | str, folder: Path) -> str:
    """Return instructions for converting a checkpoint to safetensors, for an error message.

    Parameters
    ----------
    source : Path or str
        The checkpoint as transformers finds it: its folder, or its name on the hub.
    folder : Path
        Folder with its config.json.
    """
    name = _model_class(folder)
    return (
        "Pickles are never loaded. If you trust the checkpoint, convert it once, with its head and "
        "tokenizer, and use the new folder:\n"
        f"    from transformers import AutoTokenizer, {name}\n"
        f"    {name}.from_pretrained({str(source)!r}).save_pretrained('converted')\n"
        f"    AutoTokenizer.from_pretrained({str(source)!r}).save_pretrained('converted')"
    )


def _model_class(folder: Path) -> str:
    """Return the class of transformers that loads a checkpoint including its head."""
    try:
        content = read_json(folder / "config.json")
    except ValueError:
        return "AutoModel"
    family = FAMILIES.get(str(content.get("model_type")))
    named = content.get("architectures")
    if family is not None and isinstance(named, list) and named:
        classes = {family.stem + task for task in _TASKS}
        if named[0] in classes:
            return str(named[0])
    # Named classes belong to a head, which AutoModel would drop silently.
    return f"AutoModel{_TASK}" if content.get("id2label") else "AutoModel"
