"""The numbers that forward reads from tensors, in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from medjax_torch.graph.sizes import Sizes
from medjax_torch.torch_internals import TorchDispatchMode

_READ = torch.ops.aten._local_scalar_dense.default


class Logged(TorchDispatchMode):
    """Records the numbers that are read.

    Attributes
    ----------
    values : list of bool, int or float
        The numbers, in the order in which they were read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.values: list[bool | int | float] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is _READ:
            self.values.append(result)
        return result


class _Expected(TorchDispatchMode):
    def __init__(self, sizes: Sizes, values: Sequence[bool | int | float]) -> None:
        super().__init__()
        self._sizes, self._values = sizes, iter(values)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is _READ:
            value = next(self._values, None)
            if isinstance(result, torch.SymBool | torch.SymInt | torch.SymFloat):
                for symbol in result.node.expr.free_symbols if value is not None else ():
                    self._sizes.expect(symbol, int(value) if isinstance(value, bool) else value)
        return result


def expecting(
    function: Callable[..., Any], sizes: Sizes, values: Sequence[bool | int | float]
) -> Callable[..., Any]:
    """Return a function that branches on numbers that were read earlier and records its decisions.

    Parameters
    ----------
    function : callable
        The function that is recorded with `sizes`.
    sizes : Sizes
        Where the decisions are recorded.
    values : sequence of bool, int or float
        From `Logged`. If other values are read now, the recorded conditions do not hold.
    """

    def forward(*inputs: Any) -> Any:
        with _Expected(sizes, values):
            return function(*inputs)

    return forward
