"""What it costs to convert a component: graphs traced, compared with torch, compiled."""

from __future__ import annotations

from typing import NamedTuple


class ConversionCost(NamedTuple):
    """Counts and seconds, added up over everything a trainer has converted.

    Attributes
    ----------
    nb_graphs : int
        Graphs traced: one for each mode and shape, more where forward decides by values.
    tracing : float
        Seconds that took.
    comparing : float
        Seconds of comparing the first batch of each mode with torch, padded and not.
    nb_compilations : int
        Steps compiled, or read from the cache on disk.
    compiling : float
        Seconds that took.
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
