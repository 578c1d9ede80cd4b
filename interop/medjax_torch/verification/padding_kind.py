"""What is known about the axes of batches that have the same columns."""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from medjax_torch.batches.padding import ColumnAxis, Ragged
from medjax_torch.verification.padded_pair import PaddingProof
from medjax_torch.verification.trail import Tried


@dataclasses.dataclass
class Proved:
    """Axes that are padded, and up to which size.

    Attributes
    ----------
    proof : PaddingProof
        The proof for these axes.
    tried : list of Tried
        The sizes that were padded, in this proof and since.
    end : int or None
        A size that forward cannot take; batches are padded only to smaller ones.
    """

    proof: PaddingProof
    tried: list[Tried]
    end: int | None = None

    def target(self, batch: Mapping[str, Any]) -> int:
        """Return the size to pad a batch to; its own size means no padding."""
        size = self.proof.ragged.size(batch)
        if size < self.proof.least:
            return size
        rung = self.proof.ragged.rung(size)
        return size if self.end is not None and rung >= self.end else rung

    def covers(self, size: int, to: int) -> bool:
        """Return whether padding from a size to another was tried."""
        return any(one.covers(size, to) for one in self.tried)


class Kind:
    """What is known about batches with a particular set of columns.

    Attributes
    ----------
    proved : list of Proved
        The axes that are padded.
    ever : list of PaddingProof
        All axes that were ever padded, for outputs that arrive late.
    pending : list of Ragged
        Axes that training pads, still to be proved by a batch in which they are not empty.
    barred : set of (str, int)
        Axes that must not be padded, neither in training nor in evaluation.
    tried : set of frozenset of (str, int)
        Groups of axes that were tested together.
    """

    def __init__(self) -> None:
        self.proved: list[Proved] = []
        self.ever: list[PaddingProof] = []
        self.pending: list[Ragged] = []
        self.barred: set[ColumnAxis] = set()
        self.tried: set[frozenset[ColumnAxis]] = set()
        self._seen: dict[ColumnAxis, list[int]] = {}
        self._groups: dict[ColumnAxis, int] = {}
        self._harmed: set[tuple[ColumnAxis, int]] = set()

    def add(self, proof: PaddingProof) -> None:
        """Pad the proof's axes in the following batches."""
        self.proved.append(Proved(proof, [*proof.tried]))
        self.ever.append(proof)

    def observe(self, batch: Mapping[str, Any]) -> set[tuple[ColumnAxis, int]]:
        """Record the sizes of axes that are not padded, and return the new ones, except for rows.

        Nothing is new in the first batch.
        """
        taken = {column_axis for one in self.proved for column_axis in one.proof.ragged.column_axes}
        sizes = {
            column_axis: size
            for column_axis, size in sizes_of(batch).items()
            if column_axis not in taken
        }
        numbers: dict[tuple[int, int], int] = {}
        before, self._groups = self._groups, {}
        for column_axis, size in sizes.items():
            self._groups[column_axis] = numbers.setdefault(
                (before.get(column_axis, 0), size), len(numbers)
            )
        rows = self._rows()
        new = set()
        for column_axis, size in sizes.items():
            seen = self._seen.setdefault(column_axis, [])
            if size not in seen:
                if seen and self._groups[column_axis] != rows:
                    new.add((column_axis, size))
                seen.append(size)
        return new

    def varying(self, batch: Mapping[str, Any]) -> list[tuple[tuple[ColumnAxis, ...], bool]]:
        """Return groups of axes that vary together between batches, each group only once.

        Each is returned with whether the axes are the rows of the batch.
        """
        groups: dict[int, list[ColumnAxis]] = defaultdict(list)
        for column_axis, number in self._groups.items():
            groups[number].append(column_axis)
        rows, sizes, result = self._rows(), sizes_of(batch), []
        for number, column_axes in groups.items():
            seen, size = self._seen[column_axes[0]], sizes[column_axes[0]]
            # Fewer rows only mean the last batch of an epoch, unless there are several such sizes.
            varies = len(seen) > 1 and (number != rows or size > seen[0] or len(seen) > 2)
            if varies and size and frozenset(column_axes) not in self.tried:
                self.tried.add(frozenset(column_axes))
                result.append((tuple(column_axes), number == rows))
        return result

    def is_harmed(self, batch: Mapping[str, Any]) -> bool:
        """Return whether padding was harmful in a batch with such sizes of its other axes."""
        return bool(self._harmed) and not self._harmed.isdisjoint(sizes_of(batch).items())

    def note_harm(self, sizes: set[tuple[ColumnAxis, int]]) -> None:
        """Do not pad batches with these sizes."""
        self._harmed |= sizes

    def _rows(self) -> int:
        """Return the group of the batch's rows: the one with the most first axes."""
        counts = Counter(number for (_, axis), number in self._groups.items() if axis == 0)
        return counts.most_common(1)[0][0] if counts else -1


def key_of(batch: Mapping[str, Any]) -> Hashable:
    """Return the columns, shapes and dtypes of a batch."""
    return tuple([(name, c.shape, c.dtype) for name, c in batch.items() if _is_dense(c)])


def kind_of(batch: Mapping[str, Any]) -> Hashable:
    """Return the columns, numbers of axes and dtypes of a batch."""
    return tuple((name, c.ndim, c.dtype) for name, c in batch.items() if _is_dense(c))


def sizes_of(batch: Mapping[str, Any]) -> dict[ColumnAxis, int]:
    """Return the size of each axis of the columns of a batch."""
    return {
        (name, axis): size
        for name, c in batch.items()
        if _is_dense(c)
        for axis, size in enumerate(c.shape)
    }


def _is_dense(column: Any) -> bool:
    return isinstance(column, Tensor) and not column.is_nested and column.layout == torch.strided


def names_of(column_axes: Iterable[ColumnAxis]) -> str:
    """Return the names of the columns of axes, for a message."""
    return ", ".join(dict.fromkeys(name for name, _ in column_axes))
