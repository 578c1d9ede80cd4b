"""What the steps of this package share with the compiled one that they run."""

from __future__ import annotations

from collections.abc import Sequence

from medjax.compiled import Compilation, Step


class WrappedStep:
    """A step that does more around a compiled one.

    Parameters
    ----------
    step : Step
        The compiled step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    @property
    def phase(self) -> str:
        """Training or evaluation."""
        return self._step.phase

    @property
    def compilations(self) -> Sequence[Compilation]:
        """What the compiled step was compiled for."""
        return self._step.compilations
