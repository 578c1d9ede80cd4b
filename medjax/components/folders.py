"""The checkpoint that a ready component starts from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medjax.garbage import rare_collections
from medjax.models import (
    EncoderConfig,
    Task,
    Tokenizer,
    load_tokenizer,
    prove_folder,
    read_config,
    resolve_model,
)
from medjax.models.config_json import CONFIG_FILE
from medjax.models.files import read_json
from medjax.runtime import run_in_calling_thread
from medjax.text.document import label_form

__all__ = [
    "WINDOW_LENGTH",
    "OpenedFolder",
    "check_order",
    "check_settings",
    "open_folder",
    "plain_settings",
    "warn_of_forms",
]

_LOGGER = logging.getLogger("medjax")

WINDOW_LENGTH = "window_length"
"""Field of config.json that medjax adds: tokens of a window."""

_FREE = frozenset({"label_thresholds", "reach"})  # settings that decide after the model has read

_LONGEST = 512  # tokens of a window where nothing is asked for


class OpenedFolder(NamedTuple):
    """A checkpoint whose parts belong together.

    Attributes
    ----------
    folder : Path
        Its folder.
    config : EncoderConfig
        Its configuration.
    tokenizer : Tokenizer
        Its tokenizer.
    max_length : int
        Tokens of a window.
    content : dict
        All fields of its config.json.
    """

    folder: Path
    config: EncoderConfig
    tokenizer: Tokenizer
    max_length: int
    content: dict[str, Any]


def check_order(labels: Any) -> None:
    """Raise ValueError if labels are a set, whose order is another one in each process."""
    if isinstance(labels, set | frozenset):
        msg = (
            f"labels is the set {labels!r}, which has no order; expected a list, so that a class "
            "has the same number in each run: pass labels=sorted(labels)"
        )
        raise ValueError(msg)


def warn_of_forms(labels: Sequence[str]) -> None:
    """Warn if two labels look the same: only the encoding of accents or white space differs.

    Parameters
    ----------
    labels : sequence of str
        Names of classes.
    """
    known: dict[str, str] = {}
    for label in labels:
        form = label_form(label)
        first = known.setdefault(form, label)
        if first != label:
            _LOGGER.warning(
                f"the labels {first!a} and {label!a} both read {form!r} and are two classes, as "
                "their accents are encoded in two ways or their white space differs: make them one "
                "in the data, with ' '.join(unicodedata.normalize('NFC', label).split())"
            )


def check_settings(folder: Path, settings: Mapping[str, Any], kind: str) -> None:
    """Raise ValueError if the weights of a folder were trained to be read with other settings.

    Parameters
    ----------
    folder : Path
        The checkpoint. What its config.json does not say is not compared.
    settings : mapping
        Fields of config.json that the component would write.
    kind : str
        Name of the class of the component, for messages.
    """
    content = read_json(folder / CONFIG_FILE)
    for name, expected, found in _fields(settings, content):
        if found is not None and _plain(found) != _plain(expected):
            msg = (
                f"{folder / CONFIG_FILE}: {name} is {found!r}; expected {expected!r}, as in this "
                f"component: make the component with {kind}.from_pretrained of this folder"
            )
            raise ValueError(msg)


def plain_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as JSON has them, those within a setting by their own names.

    Examples
    --------
    >>> plain_settings({"kind": "x", "candidates": {"pairs": (("b", "c"), ("a", "b"))}})
    {'kind': 'x', 'pairs': [['a', 'b'], ['b', 'c']]}
    """
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        plain |= plain_settings(value) if isinstance(value, Mapping) else {name: _plain(value)}
    return plain


def _fields(
    settings: Mapping[str, Any], content: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the names of settings, and their values here and there."""
    for name, expected in settings.items():
        found = content.get(name)
        if isinstance(expected, Mapping) and isinstance(found, Mapping):
            yield from _fields(expected, found)
        elif name not in _FREE:
            yield name, expected, found


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, and pairs in the same order, since it means nothing."""
    if not isinstance(value, list | tuple):
        return value
    return sorted((list(each) if isinstance(each, tuple) else each for each in value), key=repr)


@rare_collections()
def open_folder(name_or_folder: str | Path, task: Task, max_length: int | None) -> OpenedFolder:
    """Find and check a checkpoint.

    Parameters
    ----------
    name_or_folder : str or Path
        As for `medjax.models.resolve_model`.
    task : Task
        What its weights are read for.
    max_length : int, optional
        Tokens of a window; by default those of the checkpoint if medjax wrote it, otherwise the
        longest input of the model, but at most 512.

    Raises
    ------
    ValueError
        If it is not there, its parts do not belong together, or the length cannot be used.
    """
    run_in_calling_thread()  # reading weights makes JAX look for its devices
    folder = resolve_model(name_or_folder)
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    prove_folder(folder, config, tokenizer, task)
    content = read_json(folder / CONFIG_FILE)
    name, length = "max_length", max_length
    if length is None and WINDOW_LENGTH in content:
        name, length = f"{folder / CONFIG_FILE}: {WINDOW_LENGTH}", content[WINDOW_LENGTH]
    if length is None:
        length = min(config.max_length, _LONGEST)
    elif type(length) is not int or not 2 < length <= config.max_length:
        msg = f"{name} is {length!r}; expected 3 to {config.max_length} for this model"
        raise ValueError(msg)
    return OpenedFolder(folder, config, tokenizer, length, content)
