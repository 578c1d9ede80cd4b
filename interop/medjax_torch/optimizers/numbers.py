"""Python numbers in an optimizer's step during tracing.

Much of a step is arithmetic on numbers, such as ``lr / (1 - beta ** step)``. During tracing these
numbers are torch's SymFloat, read from tensors of shape () by ``item()``, so that the arithmetic is
recorded. torch cannot record other uses of numbers in Python; this module replaces them.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sympy
import torch
from torch import SymBool, SymFloat, SymInt, Tensor

from medjax_torch.graph.environment import Replacements
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.replacing import replaced
from medjax_torch.torch_internals import FakeTensor

_SYMBOLIC = (SymFloat, SymInt, SymBool)
_TORCH = Path(torch.__file__).parent
_RULES = tuple(str(_TORCH / name) for name in ("_decomp", "_meta_registrations", "_prims", "_refs"))
"""Where torch computes shapes and decomposes operations."""
_PASSED = tuple(str(_TORCH / name) for name in ("__init__.py", "fx", "_dynamo", "_compile.py"))


class BranchesOnValueError(TraceError):
    """Raised when the control flow of a step depends on a number known only on the device."""


class Decision(NamedTuple):
    """A branch that the step took while it was traced.

    Attributes
    ----------
    condition : sympy expression
        A condition on hyperparameters.
    outcome : bool
        Its outcome.
    names : dict
        The hyperparameter, as group and path, of each symbol.
    """

    condition: Any
    outcome: bool
    names: Mapping[Any, tuple[int, str]]

    def holds(self, values: Mapping[tuple[int, str], float]) -> bool:
        """Return whether the step would take the same branch with other hyperparameters."""
        known = {symbol: sympy.Float(values[name]) for symbol, name in self.names.items()}
        return bool(self.condition.subs(known)) == self.outcome


class Numbers:
    """The numbers of one trace.

    Attributes
    ----------
    decisions : list of Decision
        The step's decisions based on hyperparameters, without duplicates.
    """

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self._known: dict[Any, tuple[tuple[int, str], float]] = {}

    def read(
        self, tensor: Tensor, name: tuple[int, str] | None = None, value: float | None = None
    ) -> Any:
        """Return the element of `tensor` as a number whose use is recorded.

        Parameters
        ----------
        tensor : Tensor
            Shape ().
        name : (int, str), optional
            Group and path of a hyperparameter, if the host knows its value at every update.
        value : float, optional
            Its current value.
        """
        number: Any = tensor.item()
        if name is not None and value is not None:
            self._known[number.node.expr] = name, value
        return number

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within the block, make Python's functions of numbers record what they compute."""
        with ExitStack() as stack:

            def replace(owner: Any, name: str, function: Any) -> None:
                stack.enter_context(replaced(owner, name, function))

            replace(SymBool, "__bool__", lambda number: self._decide(number.node.expr))
            replace(SymFloat, "__bool__", lambda number: bool(number != 0))
            replace(SymFloat, "__float__", self._value)
            replace(SymFloat, "__int__", lambda number: int(self._value(number)))
            for name, function in _FUNCTIONS.items():
                replace(math, name, _recorded(getattr(math, name), function))
            for name in ("min", "max"):
                replace(builtins, name, _extreme(getattr(builtins, name), name == "min"))
            yield

    def _decide(self, condition: Any) -> bool:
        if condition in (True, False, sympy.true, sympy.false):
            return bool(condition)
        if _within_rules() and isinstance(condition, sympy.Eq | sympy.Ne):
            # torch skips a multiplication by 0 or 1; not skipping it is equally correct.
            return isinstance(condition, sympy.Ne)
        if condition.free_symbols <= self._known.keys():
            known = {symbol: self._known[symbol] for symbol in condition.free_symbols}
            values = {symbol: sympy.Float(value) for symbol, (_, value) in known.items()}
            outcome = bool(condition.subs(values))
            names = {symbol: name for symbol, (name, _) in known.items()}
            decision = Decision(condition, outcome, names)
            if decision not in self.decisions:
                self.decisions.append(decision)
            return outcome
        raise BranchesOnValueError(
            "its control flow depends on a value that changes from update to update (the learning "
            "rate, the number of updates, or a value computed from the gradients)"
        )

    def _value(self, number: Any) -> float:
        """Return the value of a hyperparameter, and record that the trace depends on it."""
        expression = number.node.expr
        if not expression.free_symbols <= self._known.keys():
            raise BranchesOnValueError(
                "it converts a value that changes from update to update to a Python number"
            )
        values = {s: sympy.Float(self._known[s][1]) for s in expression.free_symbols}
        value = float(expression.subs(values))
        assert self._decide(sympy.Eq(expression, value))
        return value


def _within_rules() -> bool:
    """Return whether the caller is torch's shape computation or decompositions, not the step."""
    frame = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith(_PASSED):
            return file.startswith(_RULES)
        frame = frame.f_back  # type: ignore[assignment]
    return False


_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "sqrt": torch.sqrt,
    "pow": torch.pow,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "log10": torch.log10,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "fabs": torch.abs,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
}
"""Functions of `math`, and their equivalents in torch."""


def _is_symbolic(value: Any) -> bool:
    return isinstance(value, _SYMBOLIC)


def _is_traced(value: Any) -> bool:
    return _is_symbolic(value) or (isinstance(value, FakeTensor) and value.dim() == 0)


def as_tensor(number: Any) -> Tensor:
    """Return a number as a float64 tensor of shape (), float64 being Python's precision."""
    if isinstance(number, Tensor):
        return number.to(torch.float64)
    return torch.scalar_tensor(number, dtype=torch.float64)


def _made(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement for `torch.tensor` or a similar function that records numbers."""

    def call(data: Any, *arguments: Any, dtype: torch.dtype | None = None, **options: Any) -> Any:
        if _is_symbolic(data):
            return torch.scalar_tensor(data, dtype=dtype or torch.get_default_dtype())
        if isinstance(data, list | tuple) and any(map(_is_symbolic, data)):
            return torch.stack([call(one, dtype=dtype) for one in data])
        return plain(data, *arguments, dtype=dtype, **options)

    return call


def _set_data(tensor: Tensor, value: Tensor) -> None:
    """Copy values to a tensor, where torch would exchange its memory."""
    with torch.no_grad():
        tensor.copy_(value)


REPLACEMENTS: Replacements = {
    torch.tensor: _made(torch.tensor),
    torch.as_tensor: _made(torch.as_tensor),
    torch.asarray: _made(torch.asarray),
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
}
"""Replacements for torch functions that read numbers, or that assign unnoticed by the tracer."""


def _recorded(plain: Callable[..., Any], function: Callable[..., Tensor]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if not any(map(_is_traced, arguments)):
            return plain(*arguments)
        if plain is _LOG and len(arguments) == 2:
            return call(arguments[0]) / call(arguments[1])
        return function(*map(as_tensor, arguments)).item()

    return call


_LOG = math.log


def _extreme(plain: Callable[..., Any], smallest: bool) -> Callable[..., Any]:
    """Return a `min` or `max` that selects among traced numbers without reading their values."""

    def call(*arguments: Any, **options: Any) -> Any:
        values = arguments
        if len(arguments) == 1 and isinstance(arguments[0], list | tuple):
            values = tuple(arguments[0])
        if options or not any(map(_is_traced, values)):
            return plain(*arguments, **options)
        extreme = values[0]
        for value in values[1:]:
            first, second = as_tensor(extreme), as_tensor(value)
            # As in Python: the first one, unless a later one is strictly beyond it.
            beyond = second < first if smallest else second > first
            extreme = torch.where(beyond, second, first).item()
        return extreme

    return call
