"""The entries of an optimizer's parameter groups: numbers, which may change, and constants."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax_torch.optimizers.rule import Hyperparams
from medjax_torch.optimizers.stand_in import NOTES, Entries

_VARYING = ("lr", "weight_decay", "momentum")
"""Numbers that may be set as integers and become fractions later."""

_VARIANTS = {"foreach": False, "fused": False}
"""Options that select torch's plain implementation, which can be traced."""

_OF_SCHEDULERS = ("initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum")


def entries_of(optimizer: torch.optim.Optimizer, *, on_device: bool = False) -> list[Entries]:
    """Return the groups without their parameters, with the plain implementation selected.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        The optimizer.
    on_device : bool
        Whether to select the implementation that never reads a value, if there is one.
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
    numbers: dict[str, float] = {}

    def note(path: str, value: Any) -> Any:
        numbers[path] = float(value)
        return value

    with_numbers(entries, note)
    return numbers


def with_numbers(entries: Entries, replace: Callable[[str, Any], Any]) -> Entries:
    """Return a group with every number replaced by ``replace(path, value)``."""
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
    """Return a group with every number replaced by None, comparable with ``==``."""
    return {n: comparable(v) for n, v in with_numbers(entries, lambda *_: None).items()}


def comparable(value: Any) -> Any:
    """Return a token that is equal for equal values; other objects are compared by identity.

    A tensor is another one after it was written to.
    """
    if isinstance(value, list | tuple):
        return tuple(map(comparable, value))
    if isinstance(value, dict):
        return {name: comparable(element) for name, element in value.items()}
    if isinstance(value, Tensor):
        return "tensor", id(value), value._version
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else ("object", id(value))


_CONTENT = ("param_groups", "state", "defaults", "step")


def attributes_of(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the attributes that the step of a class may read, comparable with ``==``."""
    own = {name: value for name, value in vars(optimizer).items() if name not in _CONTENT}
    return {name: comparable(v) for name, v in own.items() if not name.startswith(NOTES)}


def as_pair(value: float) -> np.ndarray:
    """Return a number as a sum of two float32, shape (2,), with twice the digits of one.

    JAX does not pass float64 to the device, and in float32 ``1 - beta`` is wrong in the fifth
    digit.
    """
    high = np.float32(value)
    low = np.float32(value - float(high)) if math.isfinite(high) else np.float32(0)
    return np.array([high, low])


def hyperparams_of(groups: Sequence[Mapping[str, float]]) -> tuple[Hyperparams, ...]:
    """Return the numbers of each group as pairs, and ``lr`` also as a single float32."""
    made: list[Hyperparams] = []
    for numbers in groups:
        pairs: Hyperparams = {f"{name} as a pair": as_pair(v) for name, v in numbers.items()}
        made.append({**pairs, "lr": np.float32(numbers.get("lr", 0.0))})
    return tuple(made)
