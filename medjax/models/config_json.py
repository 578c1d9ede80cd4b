"""Read and write the config.json of a Hugging Face checkpoint."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medjax.models.config import EncoderConfig
from medjax.models.families import FAMILIES, family_of
from medjax.models.files import read_json

__all__ = ["CONFIG_FILE", "class_names", "read_config", "write_config"]

CONFIG_FILE = "config.json"

_OWN_FIELDS = frozenset({"_name_or_path", "num_labels", "_num_labels", "torch_dtype"})
"""Fields of an original config.json that only describe that checkpoint, not a new one."""


def read_config(folder: Path | str) -> EncoderConfig:
    """Read the encoder's configuration from a checkpoint's config.json.

    Parameters
    ----------
    folder : Path or str
        Folder of the checkpoint.

    Raises
    ------
    ValueError
        If there is no config.json, it lacks a size, or it describes a model that no family
        implements.

    Examples
    --------
    >>> import tempfile
    >>> sizes = {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
    ...     "num_attention_heads": 2, "intermediate_size": 16}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "config.json")
    ...     _ = file.write_text(json.dumps({"model_type": "bert", **sizes}))
    ...     read_config(folder).hidden_act
    'gelu'
    """
    file = Path(folder) / CONFIG_FILE
    content = read_json(file)
    model_type = str(content.get("model_type"))
    if model_type not in FAMILIES:
        msg = f"{file}: model_type is {model_type!r}; supported are {', '.join(sorted(FAMILIES))}"
        raise ValueError(msg)
    family = FAMILIES[model_type]
    for name, supported in family.required.items():
        if content.get(name, supported) != supported:
            msg = f"{file}: {name} is {content[name]!r}; only {supported!r} is supported"
            raise ValueError(msg)
    try:
        content = family.from_json(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    values: dict[str, Any] = dict(family.fixed_fields)
    for field in dataclasses.fields(family.config):
        name = family.renamed_fields.get(field.name, field.name)
        if field.name not in family.fixed_fields and name in content:
            values[field.name] = content[name]
        elif field.name not in values and field.default is dataclasses.MISSING:
            msg = f"{file} lacks {name!r}; add the value that the weights were trained with"
            raise ValueError(msg)
    for name, default in family.defaults.items():
        if values.get(name) is None:
            values[name] = default
    try:
        return family.config(**values)
    except ValueError as error:
        msg = f"{file}: {error}"
        raise ValueError(msg) from error


def class_names(content: Mapping[str, Any], file: Path, nb_classes: int) -> tuple[str, ...]:
    """Return the names of a classifier's classes, in the order of its logits.

    Parameters
    ----------
    content : mapping
        Content of `file`.
    file : Path
        The config.json, for error messages.
    nb_classes : int
        Rows of the classifier.

    Raises
    ------
    ValueError
        If `id2label` does not number the classes from 0, or has another number of them.
    """
    # transformers leaves out fields that equal their default, which is these two names.
    id2label = content.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if not isinstance(id2label, dict) or set(id2label) != {str(n) for n in range(len(id2label))}:
        msg = f"{file}: id2label numbers classes {id2label!r:.200}; expected 0, 1, 2, ..."
        raise ValueError(msg)
    if not all(isinstance(name, str) for name in id2label.values()):
        raise ValueError(f"{file}: id2label is {id2label}; expected names of classes")
    if len(id2label) != nb_classes:
        msg = (
            f"{file}: id2label names {len(id2label)} classes; the classifier of the weights has "
            f"{nb_classes}: use config.json and weights from the same checkpoint"
        )
        raise ValueError(msg)
    return tuple(id2label[str(index)] for index in range(len(id2label)))


def write_config(
    folder: Path,
    config: EncoderConfig,
    labels: Sequence[str],
    original_folder: Path | str | None,
    task: str,
    more: Mapping[str, Any],
) -> None:
    """Write the config.json of a classifier.

    Parameters
    ----------
    folder : Path
        Where to write it.
    config : EncoderConfig
        The encoder's configuration.
    labels : sequence of str
        Names of the classes, in the order of the logits.
    original_folder : Path, str or None
        Checkpoint that training started from. Fields of its config.json that `EncoderConfig` does
        not have are copied.
    task : str
        What the name of its class in transformers ends with.
    more : mapping
        Further fields.
    """
    original = {} if original_folder is None else read_json(Path(original_folder) / CONFIG_FILE)
    original = {name: value for name, value in original.items() if name not in _OWN_FIELDS}
    family = family_of(config)
    fields = {
        family.renamed_fields.get(name, name): value
        for name, value in dataclasses.asdict(config).items()
        if name not in family.fixed_fields and value is not None
    }
    content = {
        **original,
        **family.to_json(fields),
        **more,
        "architectures": [f"{family.stem}For{task}"],
        "dtype": "float32",
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
