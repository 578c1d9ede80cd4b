"""Lists of numbers that stay tensors, so that they are read only where Python needs them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import torch
from torch import Tensor


class Numbers(list[Any]):
    """The list that ``tensor.tolist()`` returns for a vector of integers.

    It holds scalar tensors, which can be turned back into one tensor without reading them. Taking
    an element out returns the number, and the graph then depends on it.
    """

    def __getitem__(self, index: Any) -> Any:
        """Return a number, or a list of them for a slice."""
        element = super().__getitem__(index)
        return Numbers(element) if isinstance(index, slice) else element.item()

    def __iter__(self) -> Iterator[Any]:
        """Read the numbers one after another."""
        return (value.item() for value in super().__iter__())

    def __reversed__(self) -> Iterator[Any]:
        result: Iterator[Any] = reversed(list(self))
        return result

    def __add__(self, other: Any) -> Any:
        return list(self) + list(other)

    def __mul__(self, times: SupportsIndex) -> Any:
        return list(self) * times

    def copy(self) -> Any:
        """Return the same numbers without reading them."""
        return Numbers(self.tensors())

    def pop(self, index: SupportsIndex = -1) -> Any:
        """Remove a number and return it."""
        return super().pop(index).item()

    def tensors(self) -> list[Any]:
        """Return the elements as they are stored: tensors, and numbers that were added later."""
        return list(super().__iter__())


def stacked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `torch.tensor` or `torch.as_tensor` extended to lists that hold scalar tensors.

    torch reads such tensors; here they are stacked instead, because values of the graph must not
    be read.
    """

    def call(data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(data, list | tuple) or not _holds_traced(data):
            return function(data, *args, **kwargs)
        wanted = {k: v for k, v in kwargs.items() if v is not None and k in ("dtype", "device")}
        tensor = _joined(data).detach()
        tensor = tensor.to(*args, **wanted) if args or wanted else tensor
        return tensor.requires_grad_(kwargs.get("requires_grad", False))

    return call


def _holds_traced(data: Any) -> bool:
    if isinstance(data, list | tuple):
        return any(map(_holds_traced, _elements(data)))
    return isinstance(data, Tensor | torch.SymInt | torch.SymFloat | torch.SymBool)


def _elements(data: Any) -> Any:
    return data.tensors() if isinstance(data, Numbers) else data


def _joined(data: Any) -> Tensor:
    if isinstance(data, list | tuple):
        parts = [_joined(part) for part in _elements(data)]
        kind = functools.reduce(torch.promote_types, (part.dtype for part in parts))
        return torch.stack([part.to(kind) for part in parts])
    if isinstance(data, Tensor):
        return data
    number: Any = data
    if isinstance(data, torch.SymInt):
        return torch.scalar_tensor(number, dtype=torch.int64)
    if isinstance(data, torch.SymFloat):
        return torch.scalar_tensor(number)
    return torch.tensor(number)
