"""Python numbers that forward reads, handed to it as tensors so that a graph takes them as inputs.

A loss weight that a callback changes, or a weight for each row, would otherwise be a constant of
the graph, and each new value would ask for a graph of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state.locations import Location

PREFIX = "@"
"""Begins the input's name of a number that lies in no column."""


@dataclass(frozen=True, eq=False)
class Number:
    """A number, or a list of numbers, that a graph takes as an input.

    Attributes
    ----------
    name : str
        Of the input.
    column : str or None
        Where it lies in the batch.
    location : Location or None
        Where else it lies: an attribute or a global.
    """

    name: str
    column: str | None = None
    location: Location | None = None

    def value(self, batch: Mapping[str, Any]) -> Any:
        """Return what lies there now.

        Raises
        ------
        KeyError
            If the batch lacks the column.
        """
        return batch[self.column] if self.location is None else self.location.get()  # type: ignore[index]

    def read(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the value of now: floats in torch's default dtype, integers in int64."""
        return torch.tensor(self.value(batch))

    @staticmethod
    def handed(value: Tensor) -> Any:
        """Return what forward finds in the place of the number or the list."""
        return value if value.ndim == 0 else list(value.unbind(0))


def is_number(value: Any) -> bool:
    """Tell whether a value can be an input: a number, or numbers of one type in a list."""
    if isinstance(value, list | tuple):
        return bool(value) and len({type(held) for held in value}) == 1 and _is_one(value[0])
    return _is_one(value)


def _is_one(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**63)


def tensors_of(batch: Mapping[str, Any], numbers: Sequence[Number]) -> dict[str, Tensor]:
    """Return the inputs that numbers give for a batch, by name."""
    return {number.name: number.read(batch) for number in numbers}
