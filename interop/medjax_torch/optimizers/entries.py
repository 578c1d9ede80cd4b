"""What stands in an optimizer's parameter groups: numbers that may change, and everything else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.stand_in import Entries

_VARYING = ("lr", "weight_decay", "momentum")
"""Numbers that are set as integers at times and become fractions later."""

_VARIANTS = {"foreach": False, "fused": False}
"""Implementations of one formula, of which the plain one can be traced."""

_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


def entries_of(optimizer: torch.optim.Optimizer, *, on_device: bool = False) -> list[Entries]:
    """Return the groups without parameters, with the plain implementation chosen.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer.
    on_device : bool
        Whether the implementation that never looks at a value is chosen, where there is one.
    """
    chosen = {**_VARIANTS, **({"capturable": True} if on_device else {})}
    return [
        {
            name: chosen.get(name, value)
            for name, value in group.items()
            if name not in ("params", *_OF_SCHEDULERS)
        }
        for group in optimizer.param_groups
    ]


def numbers_of(entries: Entries) -> dict[str, float]:
    """Return the numbers of a group by path, such as ``lr`` and ``betas.0``."""
    found: dict[str, float] = {}

    def note(path: str, value: Any) -> Any:
        found[path] = float(value)
        return value

    with_numbers(entries, note)
    return found


def with_numbers(entries: Entries, replace: Callable[[str, Any], Any]) -> Entries:
    """Return a group with ``replace(path, value)`` in the place of every number."""
    made: Entries = {}
    for name, value in entries.items():
        if _is_number(name, value):
            made[name] = replace(name, value)
        elif type(value) in (list, tuple):
            items = (
                replace(f"{name}.{i}", item) if isinstance(item, float) else item
                for i, item in enumerate(value)
            )
            made[name] = type(value)(items)
        else:
            made[name] = value
    return made


def _is_number(name: str, value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.is_floating_point()
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, float) or (is_integer and name in _VARYING)


def constants_of(entries: Entries) -> Entries:
    """Return a group with None in the place of every number, to be compared with ``==``."""
    return {n: comparable(v) for n, v in with_numbers(entries, lambda *_: None).items()}


def comparable(value: Any) -> Any:
    """Return something that equals what stands for the same value; objects are only themselves."""
    if isinstance(value, list | tuple):
        return tuple(map(comparable, value))
    if isinstance(value, dict):
        return {name: comparable(held) for name, held in value.items()}
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else ("object", id(value))


def as_pair(value: float) -> np.ndarray:
    """Return a number as the sum of two of float32, shape (2,), which has twice their digits.

    JAX hands no float64 over to the device; ``1 - beta`` is wrong in the fifth digit of float32.
    """
    high = np.float32(value)
    low = np.float32(value - float(high)) if math.isfinite(high) else np.float32(0)
    return np.array([high, low])


def hyperparams_of(groups: Sequence[Mapping[str, float]]) -> tuple[Hyperparams, ...]:
    """Return the numbers of each group as pairs; ``lr``, where there is one, stands by itself."""
    made: list[Hyperparams] = []
    for numbers in groups:
        pairs: Hyperparams = {f"{name} as a pair": as_pair(v) for name, v in numbers.items()}
        made.append({**pairs, "lr": np.float32(numbers.get("lr", 0.0))})
    return tuple(made)
