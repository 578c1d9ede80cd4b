"""Separates the user's settings of a torch optimizer and scheduler from their training state.

torch keeps both in one state: loading a state restores the rate, decay and schedule that were set
when it was saved. The user's settings are therefore stored separately, and settings that the user
has changed since are applied again after loading.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medjax.checkpoint.progress import EVAL_ITEMS
from medjax.checkpoint.records import read_record
from medjax_torch.checkpoints import read_torch_files
from medjax_torch.session.resumed_schedulers import (
    INTERVAL,
    Counted,
    FreshScheduler,
    are_different,
    tell,
)
from medjax_torch.session.stepped_schedulers import like
from medjax_torch.session.torch_settings import NOT_PLAIN
from medjax_torch.session.trainer_protocol import TrainerProtocol

_BASE = "initial_lr"  # the value that schedulers scale


def resume_torch(
    folder: Path, trainer: TrainerProtocol, current: dict[str, Any], nb_updates: int
) -> None:
    """Load the saved states of optimizer and scheduler, and apply settings changed since.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    trainer : TrainerProtocol
        Provides optimizer and scheduler, new as the user created them, and the settings.
    current : dict
        Their `torch_settings`.
    nb_updates : int
        Number of updates made so far.

    Raises
    ------
    CheckpointError
        If their states cannot be read.
    MismatchError
        If the scheduler counts epochs instead of updates now, or updates instead of epochs, and
        cannot go on.
    """
    optimizer, scheduler = trainer.optimizer, trainer.lr_scheduler
    progress = read_record(folder)["progress"]
    then = progress.get("settings", {})
    was = then.get("torch scheduler") or {}
    is_another = bool(was) and are_different(was, current["torch scheduler"])
    fresh = FreshScheduler(scheduler)
    read_torch_files(folder, optimizer, None if is_another else scheduler)
    before, after = then.get("torch optimizer", []), current["torch optimizer"]
    groups = getattr(optimizer, "param_groups", [])
    if len(before) == len(after) == len(groups):
        for group, old, new in zip(groups, before, after, strict=True):
            _put_in_force(group, old, new)
    if is_another:
        _start_again(optimizer, scheduler, was["class"], current)
    elif was:
        interval = trainer.options.lr_scheduler_interval
        nb_done = nb_updates if interval == "step" else progress["epoch"] - 1
        counted = Counted(then.get(INTERVAL, interval), interval, nb_done)
        fresh.follow(scheduler, was, current["torch scheduler"], counted)
        metric = trainer.config.metric_to_track_lr
        nb_evaluated = len(trainer.eval_dataloader.dataset)  # type: ignore[arg-type]
        former = {
            "metric_to_track_lr": then.get("metric_to_track_lr", metric),
            "number of evaluation items": progress["data"].get(EVAL_ITEMS) or nb_evaluated,
        }
        fresh.forget_metric(scheduler, former, (metric, nb_evaluated))


def _put_in_force(group: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, value in new.items():
        if name not in old or old[name] == value or NOT_PLAIN in (old[name], value):
            continue
        if name == "lr" and _BASE in group and old["lr"]:
            group["lr"] *= value / old["lr"]  # keep the factor that a scheduler has applied
        elif name != _BASE:
            group[name] = like(group.get(name), value)
        if name in {"lr", _BASE} and _BASE in group:
            group[_BASE] = like(group[_BASE], new.get(_BASE, value))
        tell(f"{name} of the optimizer was {old[name]!r} and is {value!r} now")


def _start_again(optimizer: Any, scheduler: Any, kind: str, current: dict[str, Any]) -> None:
    for group, fresh in zip(optimizer.param_groups, current["torch optimizer"], strict=True):
        group["lr"] = fresh["lr"]
        group.pop(_BASE, None)
        if _BASE in fresh:
            group[_BASE] = fresh[_BASE]
    tell(
        f"the scheduler was {kind} and is {type(scheduler).__name__} now, so it starts from the "
        "beginning"
    )
