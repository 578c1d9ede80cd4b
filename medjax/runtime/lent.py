"""Weak references to functions, for the static fields of a pytree.

JAX keeps the structure of every tree that a donating function was called with until the process
ends; `jax.clear_caches` does not remove it. A function in a static field is part of that structure,
and keeps everything alive that it closes over, such as the weights of a model.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Lent", "lent", "owned"]


class Lent:
    """Calls a function without keeping it alive.

    Two of them are equal if they refer to the same function, so trees that differ only in them
    have the same structure.

    Parameters
    ----------
    function : callable
        The function, which the component, the optimizer or the step must keep alive.

    Examples
    --------
    >>> def double(x):
    ...     return 2 * x
    >>> Lent(double)(3), Lent(double) == Lent(double)
    (6, True)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        parts: tuple[Any, ...] = (function,)
        if isinstance(function, types.MethodType):
            parts = (function.__func__, function.__self__)
        # Without a callback, Python returns the same reference to an object each time.
        self._parts = tuple(weakref.ref(part) for part in parts)
        self._name = getattr(function, "__qualname__", type(function).__name__)

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself.

        Raises
        ------
        ReferenceError
            If nothing keeps it alive any more.
        """
        parts: list[Any] = [part() for part in self._parts]
        if any(part is None for part in parts):
            msg = (
                f"the function {self._name} of this state no longer exists, as a state does not "
                "keep it alive; keep the component and the optimizer for as long as you use the "
                "state"
            )
            raise ReferenceError(msg)
        function: Callable[..., Any] = types.MethodType(*parts) if len(parts) == 2 else parts[0]
        return function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        """Return whether both refer to the same function."""
        return isinstance(other, Lent) and self._identity == other._identity

    def __hash__(self) -> int:
        """Return a hash that stays the same when the function no longer exists."""
        return hash(self._identity)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function."""
        return Lent, (self.function,)

    def __repr__(self) -> str:
        """Return the name of the function."""
        return f"Lent({self._name})"

    @property
    def _identity(self) -> tuple[int, ...]:
        return tuple(map(id, self._parts))


def lent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `Lent` for a function, or the function itself if it cannot be weakly referenced.

    Examples
    --------
    >>> lent(len) is len
    False
    >>> lent(len)("abc")
    3
    """
    if isinstance(function, Lent):
        return function
    try:
        return Lent(function)
    except TypeError:
        return function


def owned(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that a `Lent` refers to, and any other function as it is.

    Examples
    --------
    >>> owned(lent(len)) is len, owned(len) is len
    (True, True)
    """
    return function.function if isinstance(function, Lent) else function
