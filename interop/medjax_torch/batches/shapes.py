"""How many kinds of batches there were: each is traced and compiled."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

logger = logging.getLogger("medjax")

_MANY = 16  # shapes, beyond which compiling is likely to take longer than computing


class ShapeCount:
    """Counts distinct shapes of batches, warns once of many and stops at too many.

    Parameters
    ----------
    limit : int
        ``Options.max_shapes``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._seen: set[tuple[tuple[str, tuple[int, ...]], ...]] = set()

    def __len__(self) -> int:
        """Return the number of distinct shapes so far."""
        return len(self._seen)

    def add(self, columns: Mapping[str, Tensor]) -> None:
        """Take the shapes of a batch.

        Raises
        ------
        ValueError
            If there are more than the limit; the message names the columns that differ.
        """
        shape = tuple((name, tuple(column.shape)) for name, column in columns.items())
        if shape in self._seen:
            return
        if len(self._seen) == self._limit:
            msg = (
                f"the batch has a new shape after {self._limit} others: {self._varying(shape)}. "
                "Each shape is traced and compiled; pad the column in collate, name the value "
                "that pads it with Options(padding={column: value}), or raise max_shapes"
            )
            raise ValueError(msg)
        self._seen.add(shape)
        if len(self._seen) == _MANY:
            logger.warning(
                "%d batches had %d different shapes or more: %s. Each is traced and compiled, "
                "which takes seconds. Pad the column in collate, or name the value that pads it "
                "with Options(padding={column: value})",
                *(_MANY, _MANY, self._varying(shape)),
            )

    def _varying(self, shape: tuple[tuple[str, tuple[int, ...]], ...]) -> str:
        """Return the columns whose shape differs from batch to batch, with the latest."""
        seen = [dict(known) for known in self._seen]
        varying = [
            f"column {name!r} {found}"
            for name, found in shape
            if any(known.get(name) != found for known in seen)
        ]
        return ", ".join(varying)
