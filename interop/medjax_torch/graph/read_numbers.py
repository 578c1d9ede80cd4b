"""Numbers read from tensors while forward is recorded, which remember how they were computed."""

from __future__ import annotations

import contextlib
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax_torch.graph.replacing import replaced


@dataclass(frozen=True)
class Expression:
    """How Python computed a number from tensors that were read.

    Attributes
    ----------
    function : callable
        A function of numbers.
    operands : tuple
        Numbers, other expressions, and scalar tensors that were read.
    """

    function: Callable[..., Any]
    operands: tuple[Any, ...]

    def tensors(self) -> list[Any]:
        """Return the tensors that were read, in the order in which `evaluate` takes values."""
        return [
            tensor
            for operand in self.operands
            for tensor in (
                operand.tensors()
                if isinstance(operand, Expression)
                else [operand]
                if isinstance(operand, Tensor)
                else []
            )
        ]

    def evaluate(self, values: Sequence[Any]) -> Any:
        """Compute the number, as Python does, from the values of the tensors."""
        return self._evaluated(iter(values))

    def _evaluated(self, values: Iterator[Any]) -> Any:
        operands = []
        for operand in self.operands:
            if isinstance(operand, Expression):
                operand = operand._evaluated(values)
            elif isinstance(operand, Tensor):
                operand = next(values)
            operands.append(operand)
        return self.function(*operands)

    def on_tensors(self) -> Tensor:
        """Compute the number with tensors, in double precision.

        Raises
        ------
        TypeError
            If a function has no counterpart for tensors.
        """
        operands = [
            operand.on_tensors()
            if isinstance(operand, Expression)
            else _wide(operand)
            if isinstance(operand, Tensor)
            else operand
            for operand in self.operands
        ]
        function: Any = _ON_TENSORS.get(self.function, self.function)
        result = function(*operands)
        if not isinstance(result, Tensor):
            raise TypeError(
                f"{self.function} of a tensor returned a {type(result).__name__}; expected a tensor"
            )
        return result


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.float64 if tensor.is_floating_point() else torch.int64)


def itself(number: Any) -> Any:
    """Return the number itself, as it was read."""
    return number


class ReadNumber:
    """Base class of the numbers read from a tensor.

    Attributes
    ----------
    expression : Expression
        How the number was computed.
    is_altered : bool
        Whether a number other than the tensor's was handed out, to see what depends on it.
    """

    expression: Expression
    is_altered: bool


class ReadFloat(float, ReadNumber):
    """A float that also knows which tensors it was computed from."""


class ReadInt(int, ReadNumber):
    """An integer that also knows which tensors it was computed from."""


_MODEST = 3
"""Replaces the integer part of an altered number that is too large or not finite."""


def read_number(value: Any, expression: Expression, *, is_altered: bool = False) -> Any:
    """Return an int or float as a number that remembers `expression`, any other value unchanged."""
    number: Any
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    number = ReadFloat(value) if isinstance(value, float) else ReadInt(value)
    number.expression, number.is_altered = expression, is_altered
    return number


def plain(value: Any) -> Any:
    """Return a number that was read as a plain Python number; return other values unchanged."""
    if isinstance(value, ReadFloat):
        return float.__float__(value)
    return int.__int__(value) if isinstance(value, ReadInt) else value


def _combined(function: Callable[..., Any], *operands: Any) -> Any:
    """Apply a function to numbers, some of which were read."""
    altered = any(isinstance(o, ReadNumber) and o.is_altered for o in operands)
    numbers = [plain(o) for o in operands]
    rounds = function in (int, math.floor, math.ceil, math.trunc) or (
        function is round and operands[1:] in ((), (None,))
    )
    if altered and rounds and not abs(numbers[0]) < 1e9:
        value: Any = _MODEST
    else:
        value = function(*numbers)
    sources = [o.expression if isinstance(o, ReadNumber) else o for o in operands]
    return read_number(value, Expression(function, tuple(sources)), is_altered=altered)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _arithmetic(function: Callable[..., Any], *, reflected: bool = False) -> Any:
    def method(self: Any, *others: Any) -> Any:
        if not all(map(_is_number, others)):
            return NotImplemented
        return (
            _combined(function, *others, self) if reflected else _combined(function, self, *others)
        )

    return method


def _comparison(function: Callable[..., Any]) -> Any:
    def method(self: Any, other: Any) -> Any:
        if not _is_number(other):
            return NotImplemented
        # The comparison is recorded on tensors and answered by their values.
        sides = [
            o.expression.on_tensors() if isinstance(o, ReadNumber) else o for o in (self, other)
        ]
        return bool(function(*sides))

    return method


def _rounded(function: Callable[..., Any]) -> Any:
    def method(self: Any, *digits: Any) -> Any:
        return _combined(function, self, *digits)

    return method


_UNARY: dict[str, Callable[..., Any]] = {
    "neg": operator.neg,
    "abs": abs,
    "round": round,
    "floor": math.floor,
    "ceil": math.ceil,
    "trunc": math.trunc,
}

for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for _class in (ReadFloat, ReadInt):
        setattr(_class, f"__{_name}__", _arithmetic(getattr(operator, _name)))
        setattr(_class, f"__r{_name}__", _arithmetic(getattr(operator, _name), reflected=True))
for _class in (ReadFloat, ReadInt):
    for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(_class, f"__{_name}__", _comparison(getattr(operator, _name)))
    for _name, _function in _UNARY.items():
        setattr(_class, f"__{_name}__", _rounded(_function))
    _class.__bool__ = lambda self: self != 0  # type: ignore
    _class.__hash__ = (float if _class is ReadFloat else int).__hash__  # type: ignore
    # Python requires exactly its own types as results of these.
    _class.__int__ = lambda self: plain(_combined(int, self))  # type: ignore
    _class.__float__ = lambda self: float(plain(self))  # type: ignore
ReadInt.__int__ = int.__int__  # type: ignore[method-assign]


_ON_TENSORS: dict[Any, Any] = {
    itself: itself,
    abs: torch.abs,
    int: lambda x: torch.trunc(x).to(torch.int64),
    round: lambda x, digits=None: (
        torch.round(x).to(torch.int64) if digits is None else torch.round(x, decimals=digits)
    ),
    math.floor: lambda x: torch.floor(x).to(torch.int64),
    math.ceil: lambda x: torch.ceil(x).to(torch.int64),
    math.trunc: lambda x: torch.trunc(x).to(torch.int64),
    math.exp: torch.exp,
    math.log: torch.log,
    math.log2: torch.log2,
    math.log10: torch.log10,
    math.sqrt: torch.sqrt,
}

_QUESTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
}
_FUNCTIONS = ("exp", "log", "log2", "log10", "sqrt")


def _asking(original: Callable[..., Any], question: Callable[[Tensor], Tensor]) -> Any:
    def ask(value: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(value, ReadNumber):
            return bool(question(value.expression.on_tensors().double()))
        return original(value, *args, **kwargs)

    return ask


def _following(original: Callable[..., Any]) -> Any:
    def call(value: Any, *args: Any) -> Any:
        if not isinstance(value, ReadNumber) or args:
            return original(plain(value), *args)
        try:
            return _combined(original, value)
        except (OverflowError, ValueError):
            if not value.is_altered:
                raise
            expression = Expression(original, (value.expression,))
            return read_number(math.nan, expression, is_altered=True)

    return call


@contextmanager
def following_math() -> Iterator[None]:
    """Make the functions of `math` that are used on losses keep track of numbers that were read."""
    with contextlib.ExitStack() as stack:
        for name, question in _QUESTIONS.items():
            for module in (math, np):
                asking = _asking(getattr(module, name), question)
                stack.enter_context(replaced(module, name, asking))
        for name in _FUNCTIONS:
            following = _following(getattr(math, name))
            stack.enter_context(replaced(math, name, following))
        yield
