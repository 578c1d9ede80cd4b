"""What the steps of this package share with the step that they run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from medjax.runtime import Compilation
from medjax.runtime.jit import Compiled

Wrapped = TypeVar("Wrapped", bound=Compiled)


class WrappedStep(Generic[Wrapped]):
    """Reports on the step that it runs.

    Parameters
    ----------
    step : Compiled
        The step inside.
    """

    def __init__(self, step: Wrapped) -> None:
        self._step = step

    @property
    def phase(self) -> str:
        """Training or evaluation."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """The compilations of the step inside."""
        return self._step.compilations
