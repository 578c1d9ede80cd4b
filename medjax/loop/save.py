"""Saving a checkpoint of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medjax import sharding
from medjax.callbacks import as_callback_list
from medjax.checkpoint import CheckpointStore
from medjax.component import TrainableComponent
from medjax.config import TrainerConfig
from medjax.progress import Progress, progress_record
from medjax.state import TrainState


def save(
    store: CheckpointStore,
    component: TrainableComponent,
    config: TrainerConfig,
    state: TrainState,
    progress: Progress,
    *,
    epoch: int,
    metric: float | None,
    callback: Any = None,
    block: bool = False,
    write_files: Callable[[Path], None] | None = None,
) -> str:
    """Save a checkpoint.

    Parameters
    ----------
    store : CheckpointStore
        Where to.
    component : TrainableComponent
        Writes its own files.
    config : TrainerConfig
        Written as ``trainer_config.yml``.
    state : TrainState
        The arrays; copied before this returns.
    progress : Progress
        Everything else.
    epoch : int
        Epoch of the name.
    metric : float or None
        Value of the checkpoint metric; None for a checkpoint within an epoch.
    callback : TrainerCallback or sequence of them, optional
        Gets on_save, before anything is written.
    block : bool
        Whether to wait until the checkpoint is complete.
    write_files : callable, optional
        Writes files into the folder it is given, by default those of ``component.save``.

    Returns
    -------
    str
        Folder of the checkpoint, complete after ``store.wait()``.
    """
    path = store.new_path(epoch, progress.batch)
    as_callback_list(callback).on_save(checkpoint_dir=str(path))
    if write_files is None:
        variables = sharding.to_host(state.variables)

        def write_files(folder: Path) -> None:
            component.save(folder, variables)

    store.save(
        path,
        state,
        progress_record(progress),
        metric=metric,
        config=config.to_dict(),
        write_files=write_files,
        block=block,
    )
    return str(path)
