"""The numbers that forward reads off tensors, in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medjax_torch.graph.sizes import Sizes

_READ = torch.ops.aten._local_scalar_dense.default


class Logged(TorchDispatchMode):
    """Keeps what is read.

    Attributes
    ----------
    values : list of bool, int or float
        In the order of reading.
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
    """Return a function that decides by numbers as they were read before, and notes it.

    Parameters
    ----------
    function : callable
        What is recorded in `sizes`.
    sizes : Sizes
        Where the decisions are noted.
    values : sequence of bool, int or float
        Of `Logged`. If they are not what is read now, the noted conditions do not hold.
    """

    def forward(*inputs: Any) -> Any:
        with _Expected(sizes, values):
            return function(*inputs)

    return forward
