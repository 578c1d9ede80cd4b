"""The cost of converting a component: tracing, comparing with torch, compiling."""

from __future__ import annotations

from typing import NamedTuple


class ConversionCost(NamedTuple):
    """Counts and seconds, summed over all conversions of a trainer.

    Attributes
    ----------
    nb_graphs : int
        Graphs traced: one for each mode and shape, more if control flow depends on values.
    tracing : float
        Seconds spent on tracing.
    comparing : float
        Seconds spent on comparing the first batch of each mode with torch, with and without
        padding.
    nb_compilations : int
        Steps compiled, or loaded from the cache on disk.
    compiling : float
        Seconds spent on compiling.

    Examples
    --------
    >>> print(ConversionCost(2, 1.5, 0.5, 2, 3.0))
    2 graphs traced in 1.5 s, compared with torch in 0.5 s, 2 steps compiled in 3.0 s
    """

    nb_graphs: int
    tracing: float
    comparing: float
    nb_compilations: int
    compiling: float

    def __str__(self) -> str:
        return (
            f"{self.nb_graphs} graphs traced in {self.tracing:.1f} s, compared with torch in "
            f"{self.comparing:.1f} s, {self.nb_compilations} steps compiled in "
            f"{self.compiling:.1f} s"
        )
