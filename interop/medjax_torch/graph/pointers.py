"""Slices that begin at an integer held in a buffer, as in queues of keys.

He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020, write a
batch of keys to ``queue[:, ptr : ptr + n]``, where ``ptr = int(self.queue_ptr)``. If the pointer
were read as a number, that of the first batch would be used for every batch; here it stays a
tensor.
"""

from __future__ import annotations

import builtins
import operator
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state.walk import Walk, is_of_library
from medjax_torch.graph.read_numbers import Expression, ReadInt, ReadNumber
from medjax_torch.graph.replacing import replaced


class _IntegerType(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, builtins.int)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, builtins.int)

    def __getattr__(cls, name: str) -> Any:
        return getattr(builtins.int, name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and isinstance(args[0], Tensor) and not args[0].is_floating_point():
            return args[0].item()  # a reader returns a number that knows its tensor
        if len(args) == 1 and isinstance(args[0], ReadInt):
            return args[0]
        return builtins.int(*args, **kwargs)


class _Integer(metaclass=_IntegerType):
    """Replaces `int`, which would turn its argument into a plain number."""


@contextmanager
def following_int(content: Walk) -> Iterator[None]:
    """Make `int` keep track of tensors in the modules that define a component's classes."""
    names = {
        kind.__module__
        for _, holder in content.objects
        for kind in type(holder).__mro__
        if not is_of_library(kind.__module__)
    }
    modules = [sys.modules[name] for name in names if name in sys.modules]
    with ExitStack() as stack:
        for module in modules:
            if vars(module).get("int", builtins.int) is builtins.int and module is not builtins:
                stack.enter_context(replaced(module, "int", _Integer))
        yield


class Window:
    """A slice of known length that begins at an index given by a tensor.

    Attributes
    ----------
    dim : int
        The dimension that is sliced.
    start : Tensor
        Integer, shape ().
    length : int
        Number of elements.
    rest : tuple
        The full index, with the whole of this dimension in place of the slice.
    sources : list of Tensor
        The tensors that were read to determine `start`.
    """

    def __init__(self, dim: int, start: ReadInt, length: int, rest: tuple[Any, ...]) -> None:
        self.dim, self.length, self.rest = dim, length, rest
        self.start = start.expression.on_tensors()
        self.sources = start.expression.tensors()

    def fits(self, tensor: Tensor) -> Tensor:
        """Return whether the window lies within a tensor: bool, shape ()."""
        return (self.start >= 0) & (self.start + self.length <= tensor.shape[self.dim])

    def places(self) -> Tensor:
        """Return the indices of the window's elements."""
        return self.start + torch.arange(self.length)

    def read(self, tensor: Tensor) -> Tensor:
        """Return the window's elements of a tensor."""
        return tensor[self.rest].index_select(self.dim, self.places())

    def write(self, tensor: Tensor, value: Any) -> None:
        """Write a value to the window's elements of a tensor."""
        target = tensor[self.rest]
        shape = list(target.shape)
        shape[self.dim] = self.length
        source = torch.as_tensor(value, dtype=target.dtype, device=target.device)
        target.index_copy_(self.dim, self.places(), source.expand(shape))


def window(index: Any) -> Window | None:
    """Return the window that an index selects, or None for any other kind of index."""
    entries = index if isinstance(index, tuple) else (index,)
    read = [i for i, entry in enumerate(entries) if _begins_at_read(entry)]
    if len(read) != 1 or not all(isinstance(entry, slice) for entry in entries[: read[0] + 1]):
        return None
    at = entries[read[0]]
    length = _length(at)
    if length is None or any(isinstance(part, ReadNumber) for part in _parts(entries, read[0])):
        return None
    rest = (*entries[: read[0]], slice(None), *entries[read[0] + 1 :])
    return Window(read[0], at.start, length, rest)


def _begins_at_read(entry: Any) -> bool:
    return isinstance(entry, slice) and isinstance(entry.start, ReadInt)


def _length(entry: slice) -> int | None:
    """Return the length of a slice whose end is its start plus a constant, None otherwise."""
    if entry.step not in (None, 1) or not isinstance(entry.stop, ReadInt):
        return None
    expression = entry.stop.expression
    if expression.function is not operator.add:
        return None
    for start, length in (expression.operands, expression.operands[::-1]):
        if start is entry.start.expression and isinstance(length, int) and length >= 0:
            return length
    return None


def _parts(entries: tuple[Any, ...], but: int) -> Iterator[Any]:
    for entry in (*entries[:but], *entries[but + 1 :]):
        if isinstance(entry, slice):
            yield from (entry.start, entry.stop, entry.step)
        else:
            yield entry


def as_tensor(number: ReadNumber, like: Tensor) -> Tensor:
    """Return a number that was read, as a tensor with the dtype of another tensor."""
    expression: Expression = number.expression
    return expression.on_tensors().to(like.dtype)
