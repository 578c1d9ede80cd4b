"""Recurrent layers that unpack to the length of the longest row, in batches that are padded.

`pad_packed_sequence` without `total_length` returns as many steps as the longest row has, which is
usually the length of the batch. If the batch is padded further, its other columns become longer
and the result does not. So where the longest row was as long as the batch before, the result gets
the length of the padded batch here, in graphs as well as in torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import rnn
from torch.overrides import TorchFunctionMode

from medjax_torch.torch_internals import pack_padded_sequence, pad_packed_sequence

PREFIX = "size before padding to "
"""The prefix of the names of columns that hold the size of an axis before it was padded."""

_SIZES: ContextVar[Mapping[int, Tensor]] = ContextVar("sizes before padding")

REMEDY = (
    ". Call pad_packed_sequence with total_length, the length of the padded input (x.size(1)): "
    "then few shapes serve all batches"
)


def sizes_before(sizes: Iterable[tuple[int, int]]) -> dict[str, Tensor]:
    """Return columns for pairs of a size and the size to which it is padded.

    There is none for a size to which axes of two different sizes are padded.
    """
    before: dict[int, set[int]] = {}
    for size, padded in sizes:
        before.setdefault(padded, set()).add(size)
    return {
        f"{PREFIX}{padded}": torch.tensor(found.pop())
        for padded, found in before.items()
        if len(found) == 1
    }


@contextmanager
def unpacking(columns: Mapping[str, Tensor]) -> Iterator[None]:
    """Apply to a padded batch with these columns what the head of this module describes."""
    sizes = {int(name.removeprefix(PREFIX)): value for name, value in columns.items()}
    token = _SIZES.set(sizes)
    try:
        with Unpacking(sizes):
            yield
    finally:
        _SIZES.reset(token)


def before_padding(size: int) -> Tensor | int:
    """Return what the size of an axis was before the batch was padded, or `size` itself."""
    return _SIZES.get({}).get(size, size)


class Unpacking(TorchFunctionMode):
    """Gives torch's own unpacked sequences the length of the padded batch.

    Parameters
    ----------
    sizes : mapping of int to Tensor
        Sizes of padded axes, and what they were before.

    Attributes
    ----------
    is_full : bool or None
        Whether every sequence unpacked without `total_length` was as long as the batch it was
        packed from; None if there was none.
    """

    def __init__(self, sizes: Mapping[int, Tensor] | None = None) -> None:
        super().__init__()
        self.is_full: bool | None = None
        self._sizes = sizes or {}
        # Packed sequences by the identity of their sizes, which layers hand on; kept alive here.
        self._packed: dict[int, tuple[Tensor, int]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call the function, unpacking to the padded length where that is what it stands for."""
        if func is pad_packed_sequence and _without_total() and isinstance(args[1], Tensor):
            *rest, longest = args
            _, total = self._packed.get(id(args[1]), (None, 0))
            is_full = bool(self._sizes.get(total, total) == longest)
            self.is_full = is_full and self.is_full is not False
            args = (*rest, total if is_full else longest)
        result = func(*args, **(kwargs or {}))
        if func is pack_padded_sequence and isinstance(result[1], Tensor):
            padded, _, batch_first = args
            self._packed[id(result[1])] = result[1], padded.shape[1 if batch_first else 0]
        return result


def _without_total() -> bool:
    return argument(rnn.pad_packed_sequence, "total_length", 0) is None


def argument(function: Callable[..., Any], name: str, default: Any) -> Any:
    """Return an argument of a call that is under way, `default` if there is none."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return default if frame is None else frame.f_locals.get(name, default)
