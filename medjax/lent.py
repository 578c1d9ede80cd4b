"""Functions in the static fields of a pytree, held without being owned.

JAX keeps the structure of every tree that a donating function was called with, for as long as the
process lives, and `jax.clear_caches` does not reach it. A function in a static field is part of
the structure, and with it all that it closes over: the weights of a model, for instance.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any


class Lent:
    """A stand-in that calls a function and does not keep it alive.

    Two stand-ins are equal if they stand for one function, so that trees with them have one
    structure.

    Parameters
    ----------
    function : callable
        The function. Something else has to hold it: the component, the optimizer, the step.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        parts: tuple[Any, ...] = (function,)
        if isinstance(function, types.MethodType):
            parts = (function.__func__, function.__self__)
        # Without a callback there is one reference to an object, the same each time.
        self._parts = tuple(weakref.ref(part) for part in parts)
        self._name = getattr(function, "__qualname__", type(function).__name__)

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises
        ------
        ReferenceError
            If nothing held it any more.
        """
        parts: list[Any] = [part() for part in self._parts]
        if any(part is None for part in parts):
            msg = (
                f"the function {self._name} of this state is gone; a state does not keep it alive: "
                "hold the component and the optimizer as long as you use the state"
            )
            raise ReferenceError(msg)
        found: Callable[..., Any] = types.MethodType(*parts) if len(parts) == 2 else parts[0]
        return found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Tell whether both stand for one function."""
        return isinstance(other, Lent) and self._identity == other._identity

    def __hash__(self) -> int:
        """Return a hash that stays when the function goes."""
        return hash(self._identity)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function."""
        return Lent, (self.function,)

    def __repr__(self) -> str:
        """Name the function."""
        return f"Lent({self._name})"

    @property
    def _identity(self) -> tuple[int, ...]:
        return tuple(map(id, self._parts))


def lent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a stand-in for `function`, itself if it is one or cannot be referred to weakly."""
    if isinstance(function, Lent):
        return function
    try:
        return Lent(function)
    except TypeError:
        return function


def owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what a stand-in stands for, and any other function as it is; see `Lent.function`."""
    return function.function if isinstance(function, Lent) else function
