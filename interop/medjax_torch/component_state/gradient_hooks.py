"""The hooks on the gradients of parameters, which are part of a graph."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

_KINDS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class GradientHooks:
    """Tells which hooks are registered, without looking at the tensors again.

    A handle removes its hook from the dict of its tensor, which no watch of the tensor notices.

    Parameters
    ----------
    parameters : iterable of Tensor
        The parameters. One that gets its first hook later is to be looked up again.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        found = (getattr(parameter, kind, None) for parameter in parameters for kind in _KINDS)
        self._hooks: list[Mapping[int, Any]] = [hooks for hooks in found if hooks is not None]

    def current(self) -> frozenset[int]:
        """Return the numbers of the hooks, which torch gives to one hook only."""
        return frozenset(number for hooks in self._hooks for number in hooks)
