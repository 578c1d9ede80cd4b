"""The checkpoint that a ready component starts from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from medjax.models import (
    EncoderConfig,
    Task,
    Tokenizer,
    load_tokenizer,
    prove_folder,
    read_config,
    resolve_model,
)

__all__ = ["OpenedFolder", "open_folder"]

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
    """

    folder: Path
    config: EncoderConfig
    tokenizer: Tokenizer
    max_length: int


def open_folder(name_or_folder: str | Path, task: Task, max_length: int | None) -> OpenedFolder:
    """Find and check a checkpoint.

    Parameters
    ----------
    name_or_folder : str or Path
        As for `medjax.models.resolve_model`.
    task : Task
        What its weights are read for.
    max_length : int, optional
        Tokens of a window; by default the longest input of the model, but at most 512.

    Raises
    ------
    ValueError
        If it is not there, its parts do not belong together, or the length cannot be used.
    """
    folder = resolve_model(name_or_folder)
    config = read_config(folder)
    tokenizer = load_tokenizer(folder)
    prove_folder(folder, config, tokenizer, task)
    if max_length is not None and not 2 < max_length <= config.max_length:
        msg = f"max_length is {max_length}; expected 3 to {config.max_length} for this model"
        raise ValueError(msg)
    longest = max_length or min(config.max_length, _LONGEST)
    return OpenedFolder(folder, config, tokenizer, longest)
