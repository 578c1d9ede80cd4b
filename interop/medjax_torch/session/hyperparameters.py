"""Separates the user's settings of a torch optimizer and scheduler from their training state.

torch keeps both in one state: loading a state restores the rate, decay and schedule that were set
when it was saved. The user's settings are therefore stored separately, and settings that the user
has changed since are applied again after loading.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medjax.checkpoint.progress import EVAL_ITEMS
from medjax.checkpoint.records import read_record
from medjax_torch.checkpoints import read_torch_files

logger = logging.getLogger("medjax")

_PLAIN = (bool, int, float, str, type(None))
_BASE = "initial_lr"  # the value that schedulers scale


def torch_settings(optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Return the settings of an optimizer and a scheduler that have not trained yet.

    Parameters
    ----------
    optimizer, scheduler
        torch's optimizer and scheduler, or None.

    Returns
    -------
    dict
        ``"torch optimizer"``, a list with a dict for each group, and ``"torch scheduler"``, a dict
        that has the class under ``"class"``. They contain what JSON can hold only.
    """
    groups = [
        {name: _plain(value) for name, value in group.items() if name != "params"}
        for group in getattr(optimizer, "param_groups", ())
    ]
    known: dict[str, Any] = {}
    if scheduler is not None:
        state = scheduler.state_dict() if hasattr(scheduler, "state_dict") else {}
        known = {n: _plain(v) for n, v in state.items() if _plain(v) is not _NOT_PLAIN}
        known["class"] = type(scheduler).__name__
    return {"torch optimizer": groups, "torch scheduler": known}


_NOT_PLAIN = "not plain"


def _plain(value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):  # a rate, for instance
        return value.tolist()
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if _NOT_PLAIN in items else items
    if isinstance(value, Mapping):  # the milestones of MultiStepLR, the phases of OneCycleLR
        pairs = {str(name): _plain(item) for name, item in value.items()}
        return _NOT_PLAIN if _NOT_PLAIN in pairs.values() else pairs
    return _NOT_PLAIN


def resume_torch(
    folder: Path,
    optimizer: Any,
    scheduler: Any,
    current: dict[str, Any],
    metric: str,
    nb_evaluated: int,
) -> None:
    """Load the saved states of optimizer and scheduler, and apply settings changed since.

    Parameters
    ----------
    folder : Path
        The checkpoint.
    optimizer, scheduler
        New objects, as the user created them.
    current : dict
        Their `torch_settings`.
    metric : str
        The metric that ReduceLROnPlateau follows.
    nb_evaluated : int
        Number of items of the evaluation data.

    Raises
    ------
    CheckpointError
        If their states cannot be read.
    """
    progress = read_record(folder)["progress"]
    then = progress.get("settings", {})
    was = then.get("torch scheduler") or {}
    is_another = bool(was) and _are_different(was, current["torch scheduler"])
    fresh = _attributes(scheduler)
    read_torch_files(folder, optimizer, None if is_another else scheduler)
    before, after = then.get("torch optimizer", []), current["torch optimizer"]
    groups = getattr(optimizer, "param_groups", [])
    if len(before) == len(after) == len(groups):
        for group, old, new in zip(groups, before, after, strict=True):
            _put_in_force(group, old, new)
    if is_another:
        _start_again(optimizer, scheduler, was["class"], current)
    elif was:
        _follow(scheduler, fresh, was, current["torch scheduler"])
        former = {
            "metric_to_track_lr": then.get("metric_to_track_lr", metric),
            "number of evaluation items": progress["data"].get(EVAL_ITEMS) or nb_evaluated,
        }
        _forget_metric(scheduler, fresh, former, (metric, nb_evaluated))


def _forget_metric(
    scheduler: Any, fresh: dict[str, Any], former: dict[str, Any], current: tuple[Any, ...]
) -> None:
    """Let ReduceLROnPlateau start again where it would compare values of different things."""
    if not isinstance(scheduler, ReduceLROnPlateau):
        return
    for (name, was), now in zip(former.items(), current, strict=True):
        if was == now:
            continue
        for attribute in ("best", "num_bad_epochs", "cooldown_counter"):
            setattr(scheduler, attribute, fresh[attribute])
        _say(
            f"{name} was {was!r} and is {now!r} now: what ReduceLROnPlateau has seen of the former "
            "is dropped"
        )


def _put_in_force(group: dict[str, Any], old: dict[str, Any], new: dict[str, Any]) -> None:
    for name, value in new.items():
        if name not in old or old[name] == value or _NOT_PLAIN in (old[name], value):
            continue
        if name == "lr" and _BASE in group and old["lr"]:
            group["lr"] *= value / old["lr"]  # keep the factor that a scheduler has applied
        elif name != _BASE:
            group[name] = _like(group.get(name), value)
        if name in {"lr", _BASE} and _BASE in group:
            group[_BASE] = _like(group[_BASE], new.get(_BASE, value))
        _say(f"{name} of the optimizer was {old[name]!r} and is {value!r} now")


def _like(former: Any, value: Any) -> Any:
    """Return a plain value as the kind of object that stood in its place."""
    if isinstance(former, torch.Tensor):
        return former.new_tensor(value)
    return tuple(value) if isinstance(former, tuple) else value


_PARTS = "_schedulers"  # of SequentialLR and ChainedScheduler


def _are_different(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether two schedulers are of different classes or consist of different numbers."""
    if old.get("class") != new.get("class"):
        return True
    return _PARTS in old and len(old[_PARTS]) != len(new.get(_PARTS, ()))


def _attributes(scheduler: Any) -> dict[str, Any]:
    """Return copies of what a new scheduler holds; of those that it consists of, a list."""
    held = dict(vars(scheduler)) if hasattr(scheduler, "__dict__") else {}
    held.pop("optimizer", None)
    parts = [_attributes(part) for part in held.pop(_PARTS, ())]
    plain = {name: value for name, value in held.items() if _plain(value) is not _NOT_PLAIN}
    return {**copy.deepcopy(plain), _PARTS: parts}


def _follow(
    scheduler: Any, fresh: dict[str, Any], old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Set what the user has changed about a scheduler, which holds what was saved."""
    kind = type(scheduler).__name__
    for name, value in new.items():
        if name not in old or old[name] == value or name in {"class", "_last_lr"}:
            continue
        if name == _PARTS:
            parts = zip(scheduler._schedulers, fresh[_PARTS], old[name], value, strict=True)
            for part in parts:
                _follow(*part)
            continue
        if name not in fresh:  # the state of a function of LambdaLR
            _say(f"{name} of the scheduler {kind} stays {old[name]!r}, as saved, not {value!r}")
            continue
        setattr(scheduler, name, fresh[name])
        _say(f"{name} of the scheduler {kind} was {old[name]!r} and is {value!r} now")


def _start_again(optimizer: Any, scheduler: Any, kind: str, current: dict[str, Any]) -> None:
    for group, fresh in zip(optimizer.param_groups, current["torch optimizer"], strict=True):
        group["lr"] = fresh["lr"]
        group.pop(_BASE, None)
        if _BASE in fresh:
            group[_BASE] = fresh[_BASE]
    _say(
        f"the scheduler was {kind} and is {type(scheduler).__name__} now, so it starts from the "
        "beginning"
    )


def _say(text: str) -> None:
    if jax.process_index() == 0:
        logger.warning("Resuming: %s", text)
