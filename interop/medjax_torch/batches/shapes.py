"""How many shapes the batches of a run have, each of which costs a trace and a compilation."""

from __future__ import annotations

import collections
import warnings
from collections.abc import Hashable, Mapping
from typing import Any

from medjax_torch.graph import signature

WARN_AFTER = 8
"""Shapes after which a run is told that it compiles often."""

_SHOWN = 3  # values of a column that a message gives


class ShapeCount:
    """Counts the distinct shapes of batches, warns once and stops the run at a limit.

    Parameters
    ----------
    limit : int
        Shapes that are allowed: `medjax.Options.max_shapes`.
    warn_after : int
        Shapes that are allowed without a warning.
    """

    def __init__(self, limit: int, warn_after: int = WARN_AFTER) -> None:
        self._limit = limit
        self._warn_after = warn_after
        self._seen: set[Hashable] = set()
        # As a dict, which unlike a set keeps the order of the batches for the messages.
        self._columns: dict[str, dict[Hashable, None]] = collections.defaultdict(dict)

    def __len__(self) -> int:
        """Return the number of distinct shapes so far."""
        return len(self._seen)

    def add(self, batch: Mapping[str, Any]) -> bool:
        """Count a batch and tell whether its shape is new.

        Raises
        ------
        ValueError
            If the shape is new and the limit was reached before.

        Warns
        -----
        UserWarning
            Once, at the first shape after `warn_after`.
        """
        key: Any = signature(batch)
        if key in self._seen:
            return False
        for path, *value in key[1]:
            self._columns[path][tuple(value)] = None
        if len(self._seen) == self._limit:
            msg = f"the batch has a new shape after {self._limit} others: {self._varying()}"
            raise ValueError(f"{msg}. {_REMEDY}, or raise max_shapes")
        self._seen.add(key)
        if len(self._seen) == self._warn_after + 1:
            msg = f"the batches have had {len(self._seen)} shapes so far: {self._varying()}"
            warnings.warn(f"{msg}. {_REMEDY}", UserWarning, stacklevel=2)
        return True

    def _varying(self) -> str:
        """Tell which columns vary, and how."""
        columns = {path: list(found) for path, found in self._columns.items() if len(found) > 1}
        if not columns:
            return "the names of the columns differ"
        return "; ".join(f"column {path!r}: {_told(found)}" for path, found in columns.items())


_REMEDY = (
    "Each shape costs a compilation; pad the column to the length ladder with "
    "Options(padding={column: fill}), pad it in collate, or leave it out of the batch"
)


def _told(values: list[Any]) -> str:
    told = [_describe(*value) for value in values]
    shown = list(dict.fromkeys(told))[:_SHOWN]
    return ", ".join(shown) + (", ..." if len(told) > len(shown) else "")


def _describe(kind: str, *value: Any) -> str:
    if kind == "tensor":
        shape, dtype = value
        return f"{shape} {dtype.removeprefix('torch.')}"
    return f"a constant {kind}" if kind == "array" else f"the constant {value[0]!r:.40}"
