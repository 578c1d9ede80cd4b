"""Python numbers that forward reads, passed to it as tensors so that they are graph inputs.

A loss weight that a callback changes, or a weight for each row, would otherwise be a constant of
the graph, and each new value would need a new graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state.locations import Location

PREFIX = "@"
"""Prefix of the input name of a number that is not in a batch column."""


@dataclass(frozen=True, eq=False)
class Number:
    """A number, or a list of numbers, that a graph takes as an input.

    Attributes
    ----------
    name : str
        Name of the input.
    column : str or None
        Batch column that holds it, if any.
    location : Location or None
        Attribute or global variable that holds it, if it is not in the batch.
    """

    name: str
    column: str | None = None
    location: Location | None = None

    def value(self, batch: Mapping[str, Any]) -> Any:
        """Return the current value.

        Raises
        ------
        KeyError
            If the batch lacks the column.
        """
        return batch[self.column] if self.location is None else self.location.get()  # type: ignore[index]

    def read(self, batch: Mapping[str, Any]) -> Tensor:
        """Return the current value: floats in torch's default dtype, integers in int64."""
        return torch.tensor(self.value(batch))

    @staticmethod
    def handed(value: Tensor) -> Any:
        """Return what forward receives in place of the number or the list."""
        return value if value.ndim == 0 else list(value.unbind(0))


def is_number(value: Any) -> bool:
    """Return whether a value can be an input: a number, or a list of numbers of one type."""
    if isinstance(value, list | tuple):
        return bool(value) and len({type(element) for element in value}) == 1 and _is_one(value[0])
    return _is_one(value)


def _is_one(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**63)


def tensors_of(batch: Mapping[str, Any], numbers: Sequence[Number]) -> dict[str, Tensor]:
    """Return the input tensors of the numbers for a batch, by name."""
    return {number.name: number.read(batch) for number in numbers}
