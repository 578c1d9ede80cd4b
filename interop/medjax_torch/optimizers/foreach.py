"""torch's operations on lists of tensors, applied to one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_NUMBER_LAST = ("addcdiv", "addcmul")
"""Operations whose last number is the argument `value` of Tensor's method."""


def _one_by_one(name: str) -> Callable[..., Any]:
    method = getattr(Tensor, name)

    def call(tensors: Any, *arguments: Any, **options: Any) -> list[Tensor]:
        results = []
        for index, tensor in enumerate(tensors):

            def of(value: Any, index: int = index) -> Any:
                return value[index] if isinstance(value, list | tuple) else value

            own = [of(value) for value in arguments]
            named = {key: of(value) for key, value in options.items()}
            if name.rstrip("_") in _NUMBER_LAST:
                named.setdefault("value", named.pop("scalars", 1))
                own, named["value"] = own[:2], (own[2] if len(own) > 2 else named["value"])
            results.append(method(tensor, *own, **named))
        return results

    return call


_PREFIX = "_foreach_"

ONE_BY_ONE = {
    getattr(torch, name): _one_by_one(name.removeprefix(_PREFIX))
    for name in dir(torch)
    if name.startswith(_PREFIX) and hasattr(Tensor, name.removeprefix(_PREFIX))
}
"""An equivalent of each ``torch._foreach_`` function; lowerings only support single tensors."""
