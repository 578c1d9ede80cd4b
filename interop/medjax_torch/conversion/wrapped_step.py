"""Base class of steps that wrap another step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from medjax.runtime import Compilation
from medjax.runtime.jit import Compiled

Wrapped = TypeVar("Wrapped", bound=Compiled)


class WrappedStep(Generic[Wrapped]):
    """Wraps a step and passes on its phase and compilations.

    Parameters
    ----------
    step : Compiled
        The wrapped step.
    """

    def __init__(self, step: Wrapped) -> None:
        self._step = step

    @property
    def phase(self) -> str:
        """The phase of the wrapped step: training or evaluation."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """The compilations of the wrapped step."""
        return self._step.compilations
