"""The torch files of a checkpoint, in medkit's layout."""

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
    """Write the states of the optimizer and the scheduler, if any, and the component's files.

    Parameters
    ----------
    folder : Path
        An existing folder.
    optimizer : torch.optim.Optimizer or optax.GradientTransformation
        Only a torch optimizer has a file.
    scheduler : torch.optim.lr_scheduler.LRScheduler or None
        Has no file if None.
    component : TrainableComponent
        Its `save` is called.
    """
    if isinstance(optimizer, torch.optim.Optimizer):
        torch.save(optimizer.state_dict(), folder / OPTIMIZER_NAME)
    if scheduler is not None:
        torch.save(scheduler.state_dict(), folder / SCHEDULER_NAME)
    component.save(folder)


def read_torch_files(folder: Path, optimizer: Any, scheduler: Any) -> None:
    """Load the states of the optimizer and the scheduler from a checkpoint, as far as it has them.

    Raises
    ------
    CheckpointError
        If a file contains anything but plain tensors and numbers, or is from another optimizer.
    """
    for name, holder in ((OPTIMIZER_NAME, optimizer), (SCHEDULER_NAME, scheduler)):
        path = folder / name
        if not hasattr(holder, "load_state_dict") or not path.exists():
            continue
        try:
            # Only tensors, numbers and containers: an arbitrary pickle could run code.
            holder.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            msg = (
                f"{path} cannot be loaded into the {type(holder).__name__} ({error}); expected the "
                "state of an optimizer or scheduler of this kind with the same parameters. Remove "
                "the file to start without it"
            )
            raise CheckpointError(msg) from error


def is_of_medkit(resume: Any) -> bool:
    """Return whether `resume` is a checkpoint folder without a training state, like medkit's."""
    if resume is None or resume == "auto":
        return False
    folder = Path(resume)
    return (folder / CONFIG_NAME).is_file() and not (folder / RECORD).exists()


def write_plain(
    path: Path, config: dict[str, Any], optimizer: Any, scheduler: Any, component: Any
) -> None:
    """Write a checkpoint of weights, optimizer and scheduler, as medkit does.

    It gets its name when it is complete. Training can start from its weights, but not be resumed.

    Raises
    ------
    CheckpointError
        If it cannot be written; a partial checkpoint is removed.
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
