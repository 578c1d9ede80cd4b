"""What forward does at two sizes of a batch, which tells whether it decides by the size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch.overrides import TorchFunctionMode

_LEAST = 3
"""Sizes nearer to each other tell nothing: any two whole numbers would go with them."""


class Operation(NamedTuple):
    """A call of a function of torch.

    Attributes
    ----------
    function : callable
        The function.
    numbers : tuple of int or float
        The numbers among its arguments, such as the ends of a slice, in order.
    """

    function: Any
    numbers: tuple[int | float, ...]


class Tried(NamedTuple):
    """A size that was padded to another one and changed nothing.

    Attributes
    ----------
    size, to : int
        The two sizes.
    is_alike : bool
        Whether forward does the same at both, so that what holds for them holds between them. A
        forward that decides by the size, as one that cuts long texts to their beginning and end,
        may be harmed by padding at some sizes only.
    """

    size: int
    to: int
    is_alike: bool

    def covers(self, size: int, to: int) -> bool:
        """Return whether padding from a size to another need not be tried any more."""
        if self.is_alike:
            return self.size <= size and to <= self.to
        return (size, to) == (self.size, self.to)


class Trail(TorchFunctionMode):
    """A mode that notes which functions of torch Python calls; what they call themselves is not.

    So an LSTM over packed sequences is one operation, whatever the number of its steps.

    Attributes
    ----------
    operations : list of Operation
        The calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function."""
        options = kwargs or {}
        numbers = tuple(_numbers([*args, *options.values()]))
        self.operations.append(Operation(func, numbers))
        return func(*args, **options)


def _numbers(arguments: Iterable[Any]) -> Iterable[int | float]:
    for argument in arguments:
        if type(argument) in (int, float):
            yield argument
        elif isinstance(argument, slice):
            yield from _numbers([argument.start, argument.stop, argument.step])
        elif isinstance(argument, list | tuple):
            yield from _numbers(argument)


def is_alike(
    shorter: Sequence[Operation], longer: Sequence[Operation], grown: Sequence[int]
) -> bool:
    """Return whether forward has done the same for a batch and for a longer one.

    Parameters
    ----------
    shorter, longer : sequence of Operation
        What it has done for each.
    grown : sequence of int
        By how much the sizes of axes differ.

    Returns
    -------
    bool
        Whether the operations are the same and each number is the same or has grown with a size,
        by a whole multiple as sizes of flattened arrays do; or, where Python loops over an axis,
        whether the operations are more in the same proportion. It is False if the sizes are too
        close to tell.
    """
    if min(grown) < _LEAST:
        return False
    if [each.function for each in shorter] == [each.function for each in longer]:
        return all(
            len(one.numbers) == len(other.numbers)
            and all(map(_follows(grown), one.numbers, other.numbers))
            for one, other in zip(shorter, longer, strict=True)
        )
    before, after = (Counter(each.function for each in trail) for trail in (shorter, longer))
    more = [after[function] - before[function] for function in before | after]
    return all(any(number % by == 0 for by in grown) for number in more)


def _follows(grown: Sequence[int]) -> Any:
    def follows(before: float, after: float) -> bool:
        if before == after:
            return True
        whole = isinstance(before, int) and isinstance(after, int)
        return whole and any((after - before) % by == 0 for by in grown)

    return follows
