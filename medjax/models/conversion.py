"""How to convert checkpoints that hold pickles, which are never loaded."""

from __future__ import annotations

from pathlib import Path

from medjax.models.families import FAMILIES
from medjax.models.files import read_json

_TASK = "ForTokenClassification"
_TASKS = (
    "Model",
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForMultipleChoice",
    "ForQuestionAnswering",
    _TASK,
)
"""Ends of the names of classes that transformers has for every supported family."""


def convert(source: Path | str, folder: Path) -> str:
    """Return how to turn a checkpoint without safetensors into one that has them.

    Parameters
    ----------
    source : Path or str
        The checkpoint, as transformers finds it: its folder, or its name on the hub.
    folder : Path
        Where its config.json is.
    """
    name = _model_class(folder)
    return (
        "Pickles are never loaded; convert the checkpoint once, where you trust it, with head and "
        "tokenizer, and give the new folder:\n"
        f"    from transformers import AutoTokenizer, {name}\n"
        f"    {name}.from_pretrained({str(source)!r}).save_pretrained('converted')\n"
        f"    AutoTokenizer.from_pretrained({str(source)!r}).save_pretrained('converted')"
    )


def _model_class(folder: Path) -> str:
    """Return the class of transformers that loads all of a checkpoint, its head included."""
    try:
        content = read_json(folder / "config.json")
    except ValueError:
        return "AutoModel"
    family = FAMILIES.get(str(content.get("model_type")))
    named = content.get("architectures")
    if family is not None and isinstance(named, list) and named:
        stem = family.architecture.removesuffix(_TASK)
        if named[0] in {stem + task for task in _TASKS}:
            return str(named[0])
    # Named classes belong to a head, which AutoModel would drop in silence.
    return f"AutoModel{_TASK}" if content.get("id2label") else "AutoModel"
