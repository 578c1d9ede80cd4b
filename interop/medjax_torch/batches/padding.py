"""Ragged columns of collated torch batches, padded to a ladder of lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from medjax.data.ladder import HUGGING_FACE_PADDING
from medjax_torch.options import Options


class Padder:
    """Pads the second axis of columns known by name.

    Parameters
    ----------
    options : Options
        `padding` adds to the names and values of Hugging Face; `length_ladder` has the lengths.
    """

    def __init__(self, options: Options) -> None:
        fills = {**HUGGING_FACE_PADDING, **options.padding}
        self._fills = {name: fill for name, fill in fills.items() if fill is not None}
        self._ladder = options.length_ladder

    def length(self, batch: Mapping[str, Any]) -> int | None:
        """Return the length that the known columns have in common, None if they have none.

        It is that of the longest; a column of another length (one label a row, say) is not ragged.
        """
        return max((batch[name].shape[1] for name in self._candidates(batch)), default=None)

    def columns(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the names of the ragged columns."""
        length = self.length(batch)
        return [name for name in self._candidates(batch) if batch[name].shape[1] == length]

    def rung(self, length: int) -> int | None:
        """Return the shortest length of the ladder that holds `length`, None if it is too short."""
        return next((rung for rung in self._ladder if rung >= length), None)

    def pad_to(self, batch: Any, length: int) -> Any:
        """Return a batch of the same type with its ragged columns padded to `length`."""
        padded = dict(batch)
        for name in self.columns(batch):
            column = batch[name]
            widths = [0, 0] * (column.ndim - 2) + [0, length - column.shape[1]]
            padded[name] = F.pad(column, widths, value=self._fills[name])
        return type(batch)(padded)

    def _candidates(self, batch: Mapping[str, Any]) -> list[str]:
        return [
            name
            for name in self._fills
            if name in batch and isinstance(batch[name], Tensor) and batch[name].ndim > 1
        ]
