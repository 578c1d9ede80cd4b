"""The files of a checkpoint that torch reads, as medkit lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from medjax.checkpoint import CheckpointError
from medjax.checkpoint.records import RECORD
from medjax.checkpoint.restore import free_path
from medjax.checkpoint.space import bytes_in, give_back
from medjax.checkpoint.store import CONFIG

OPTIMIZER_NAME = "optimizer.pt"
SCHEDULER_NAME = "scheduler.pt"
CONFIG_NAME = CONFIG


def write_torch_files(folder: Path, optimizer: Any, scheduler: Any, component: Any) -> None:
    """Write the states of optimizer and scheduler, if they have one, then the component's files."""
    if isinstance(optimizer, torch.optim.Optimizer):
        torch.save(optimizer.state_dict(), folder / OPTIMIZER_NAME)
    if scheduler is not None:
        torch.save(scheduler.state_dict(), folder / SCHEDULER_NAME)
    component.save(folder)


def read_torch_files(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Give optimizer and scheduler the states that a checkpoint holds for them.

    Raises
    ------
    CheckpointError
        If a file cannot be read as plain tensors and numbers, or belongs to another optimizer.
    """
    for name, holder in ((OPTIMIZER_NAME, optimizer), (SCHEDULER_NAME, scheduler)):
        path = folder / name
        if not hasattr(holder, "load_state_dict") or not path.exists():
            continue
        try:
            # Never a pickle that could run code: tensors, numbers and containers only.
            holder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            msg = (
                f"{path} cannot be taken over by {type(holder).__name__} ({error}); expected the "
                "state of the same kind of optimizer or scheduler over the same parameters. "
                "Remove the file to start without it"
            )
            raise CheckpointError(msg) from error


def is_of_medkit(resume: Any) -> bool:
    """Tell whether `resume` is a checkpoint folder without a training state, as medkit's are."""
    if resume is None or resume == "auto":
        return False
    folder = Path(resume)
    return (folder / CONFIG_NAME).is_file() and not (folder / RECORD).exists()


def write_plain(
    path: Path, config: dict[str, Any], optimizer: Any, scheduler: Any, component: Any
) -> None:
    """Write a checkpoint of weights, optimizer and scheduler, under its name once it is complete.

    Such a checkpoint is what medkit writes. Training can start from it, but not go on.

    Raises
    ------
    CheckpointError
        If it cannot be written; what was written of it is removed.
    """
    staging = free_path(path.with_name(f".saving-{path.name}"))
    try:
        staging.mkdir(parents=True)
        text = yaml.safe_dump(config, allow_unicode=True, sort_keys=False)
        (staging / CONFIG_NAME).write_text(text, encoding="utf-8")
        write_torch_files(staging, optimizer, scheduler, component)
        staging.rename(path)
    except BaseException as error:
        failed = give_back(path, staging, bytes_in(staging), error)
        if not isinstance(error, Exception):
            raise
        raise failed from error
