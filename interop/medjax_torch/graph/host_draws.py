"""Numbers that forward draws from `random` and `numpy.random`, as inputs of the graph.

Each call with constant arguments becomes a column of the batch. Its value is a function of the
run's seed, the position of the batch and the place of the call among forward's draws, so that a
resumed run draws the same numbers as an uninterrupted one. While forward is traced, or run for a
comparison, the functions return the columns instead of drawing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medjax_torch.graph import spec_augment
from medjax_torch.graph.replacing import replaced

PREFIX = "drawn on the host: "
"""The prefix of the names of these columns."""

_NUMPY = (
    "random",
    "random_sample",
    "rand",
    "randn",
    "standard_normal",
    "normal",
    "uniform",
    "beta",
    "gamma",
    "dirichlet",
    "binomial",
    "exponential",
    "poisson",
    "laplace",
    "lognormal",
    "randint",
    "permutation",
    "choice",
)
_PYTHON = (
    "random",
    "uniform",
    "gauss",
    "normalvariate",
    "betavariate",
    "gammavariate",
    "expovariate",
    "lognormvariate",
    "triangular",
    "randint",
    "randrange",
)

_MODULES: dict[str, Any] = {"random": random, "numpy.random": np.random}


class Draw(NamedTuple):
    """A call to a function that draws random numbers.

    Attributes
    ----------
    place : int
        The number of draws that forward made before this one.
    module, function : str
        The names of the module and the function that was called.
    arguments : tuple
        The positional arguments.
    options : tuple of (str, value)
        The keyword arguments.
    """

    place: int
    module: str
    function: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]

    @property
    def column(self) -> str:
        """The name of the draw's column; equal calls have equal names."""
        arguments = [*map(repr, self.arguments), *(f"{name}={v!r}" for name, v in self.options)]
        return f"{PREFIX}{self.place}. {self.module}.{self.function}({', '.join(arguments)})"

    def value(self, position: tuple[int, ...]) -> Tensor:
        """Return the value drawn at a position; numbers become scalars of int64 or float32."""
        seed = np.random.SeedSequence([*position, self.place]).generate_state(4)
        python = self.module == "random"
        source: Any = random.Random(seed.tobytes()) if python else np.random.RandomState(seed)
        drawn = getattr(source, self.function)(*self.arguments, **dict(self.options))
        if isinstance(drawn, np.ndarray):
            return torch.from_numpy(drawn)
        is_integer = isinstance(drawn, int | np.integer)
        return torch.tensor(drawn, dtype=torch.int64 if is_integer else torch.float32)


class HostDraws:
    """The draws of a component's forward, discovered as they occur.

    Attributes
    ----------
    seed : int
        The seed of the run.
    position : tuple of int
        The epoch and the number of the next batch.
    """

    def __init__(self) -> None:
        self.seed = 0
        self.position: tuple[int, ...] = (0, 0)
        self._known: dict[bool, dict[str, Draw]] = {True: {}, False: {}}

    def _position(self, train: bool) -> tuple[int, ...]:
        return self.seed, *self.position, int(train)

    def columns(self, *, train: bool) -> dict[str, Tensor]:
        """Return the columns for the batch at the current position."""
        position = self._position(train)
        return {name: draw.value(position) for name, draw in self._known[train].items()}

    def discover(self, call: Callable[[], object], *, train: bool) -> bool:
        """Run forward, record the draws that are new, and return whether there were any.

        Forward draws the values that the columns will have at the current position.
        """
        known = self._known[train]
        before = len(known)

        def answer(draw: Draw) -> Tensor:
            known.setdefault(draw.column, draw)
            return draw.value(self._position(train))

        with _answering(answer):
            call()
        return len(known) > before


@contextmanager
def returning(columns: Mapping[str, Tensor]) -> Iterator[None]:
    """Make the functions return columns; calls without one draw, which `host_random` refuses."""
    if not columns:
        yield
        return
    with _answering(lambda draw: columns.get(draw.column)):
        yield


@contextmanager
def _answering(answer: Callable[[Draw], Tensor | None]) -> Iterator[None]:
    drawn = 0

    def stand_in(module: str, function: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal drawn
            constant = all(map(_is_constant, (*args, *kwargs.values())))
            if spec_augment.is_drawing() or not constant:
                return original(*args, **kwargs)
            draw = Draw(drawn, module, function, args, tuple(sorted(kwargs.items())))
            drawn += 1
            value = answer(draw)
            return original(*args, **kwargs) if value is None else value

        return call

    with ExitStack() as stack:
        for module, functions in (("numpy.random", _NUMPY), ("random", _PYTHON)):
            for function in functions:
                original = getattr(_MODULES[module], function)
                answering = stand_in(module, function, original)
                stack.enter_context(replaced(_MODULES[module], function, answering))
        stack.enter_context(replaced(torch, "from_numpy", _from_numpy(torch.from_numpy)))
        stack.enter_context(spec_augment.drawn_as_an_operator())
        yield


def _from_numpy(original: Callable[[Any], Tensor]) -> Callable[[Any], Tensor]:
    return lambda array: array if isinstance(array, Tensor) else original(array)


def _is_constant(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_constant, value))
    return value is None or isinstance(value, bool | int | float | str)
