"""The user's settings of a torch optimizer and scheduler, as a checkpoint records them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

__all__ = ["NOT_PLAIN", "PARTS", "plain", "torch_settings"]

NOT_PLAIN = "not plain"
"""What `plain` returns for what JSON cannot hold."""

PARTS = "_schedulers"
"""Attribute with the schedulers that a SequentialLR or ChainedScheduler consists of."""

_PLAIN = (bool, int, float, str, type(None))


def torch_settings(optimizer: Any, scheduler: Any) -> dict[str, Any]:
    """Return the settings of an optimizer and a scheduler that have not trained yet.

    Parameters
    ----------
    optimizer, scheduler
        torch's optimizer and scheduler, or None.

    Returns
    -------
    dict
        ``"torch optimizer"``, a list with a dict for each group, ``"torch optimizer class"``, and
        ``"torch scheduler"``, a dict that has the class under ``"class"``. They contain what JSON
        can hold only.
    """
    groups = [
        {name: plain(value) for name, value in group.items() if name != "params"}
        for group in getattr(optimizer, "param_groups", ())
    ]
    known: dict[str, Any] = {}
    if scheduler is not None:
        state = scheduler.state_dict() if hasattr(scheduler, "state_dict") else {}
        known = {n: plain(v) for n, v in state.items() if plain(v) is not NOT_PLAIN}
        known["class"] = type(scheduler).__name__
    return {
        "torch optimizer": groups,
        "torch optimizer class": type(optimizer).__name__,
        "torch scheduler": known,
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, or `NOT_PLAIN`."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, torch.Tensor):  # a rate, for instance
        return value.tolist()
    if isinstance(value, list | tuple):
        items = [plain(item) for item in value]
        return NOT_PLAIN if NOT_PLAIN in items else items
    if isinstance(value, Mapping):  # the milestones of MultiStepLR, the phases of OneCycleLR
        pairs = {str(name): plain(item) for name, item in value.items()}
        return NOT_PLAIN if NOT_PLAIN in pairs.values() else pairs
    return NOT_PLAIN
