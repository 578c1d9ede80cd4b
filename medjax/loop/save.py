"""Saving a checkpoint of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medjax import sharding
from medjax.checkpoint import CheckpointStore
from medjax.checkpoint.progress import Progress, progress_record
from medjax.loop.request import RunRequest
from medjax.state import TrainState


def save(
    store: CheckpointStore,
    request: RunRequest,
    state: TrainState,
    progress: Progress,
    *,
    epoch: int,
    metric: float | None,
    block: bool = False,
    write_files: Callable[[Path], None] | None = None,
) -> str:
    """Save a checkpoint.

    Parameters
    ----------
    store : CheckpointStore
        The checkpoints of the run.
    request : RunRequest
        Its component writes its own files, its configuration is written as ``trainer_config.yml``,
        its callbacks get on_save before anything is written.
    state : TrainState
        The arrays; they may be donated as soon as this returns.
    progress : Progress
        Everything else.
    epoch : int
        Epoch in the name of the folder.
    metric : float or None
        Value of the checkpoint metric; None for a checkpoint within an epoch.
    block : bool
        Whether to wait until the checkpoint is complete.
    write_files : callable, optional
        Writes files into the folder it gets; by default ``component.save`` does.

    Returns
    -------
    str
        Folder of the checkpoint, complete after ``store.wait()``.
    """
    path = store.new_path(epoch, progress.batch)
    request.callback.on_save(checkpoint_dir=str(path))
    if write_files is None:
        variables = sharding.to_host(state.variables)

        def write_files(folder: Path) -> None:
            request.component.save(folder, variables)

    store.save(
        path,
        state,
        progress_record(progress),
        metric=metric,
        config=request.config.to_dict(),
        write_files=write_files,
        block=block,
    )
    return str(path)
