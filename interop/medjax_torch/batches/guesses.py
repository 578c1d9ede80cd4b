"""Guesses which axes of a batch are ragged and how to pad them, for `padding_proof` to check."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from medjax_torch.batches.padding import ROWS, ColumnAxis, Ragged, holds, padding_rules

LABELS = "labels"
"""A column that is ragged in some tasks and not in others, such as one entry for each class."""

_IGNORED = -100
"""The ``ignore_index`` of torch's cross entropy."""

_LABEL = re.compile(r"label|target|tag|class|(^|_)y($|_)", re.IGNORECASE)

_MOST = 16  # guesses; each one costs at least a forward pass


class Guesses:
    """The guesses to try, the most probable first.

    Parameters
    ----------
    padding : mapping of str to float or None
        `Options.padding`: the user's fills, None for columns that are never padded.
    lengths : sequence of int
        `Options.length_ladder`.
    """

    def __init__(self, padding: Mapping[str, float | None], lengths: Sequence[int]) -> None:
        self._user_fills = {name: fill for name, fill in padding.items() if fill is not None}
        self._rules = padding_rules(padding)
        self._left = {name for name, fill in padding.items() if fill is None}
        self._lengths = tuple(lengths)

    def of_length(self, batch: Mapping[str, Any], without: set[ColumnAxis]) -> Iterator[Ragged]:
        """Yield the axes that may have the length of the batch's texts.

        The length is the second axis of the first column that has a padding rule, other than
        ``labels``. Other columns with a rule and this length certainly share it. Further axes of
        this length, ``labels`` included, may have it by coincidence.

        Parameters
        ----------
        batch : mapping
            A batch.
        without : set of (str, int)
            Axes known not to be ragged.
        """
        tensors = {name: batch[name] for name in self._rules if _has_axes(batch.get(name))}
        anchors = [name for name in tensors if name != LABELS]
        length = tensors[anchors[0]].shape[1] if anchors else 0
        sure = [(name, 1) for name in anchors if tensors[name].shape[1] == length]
        if not length or not without.isdisjoint(sure):
            return
        doubtful = [
            column_axis
            for column_axis in self._axes_of(batch, length)
            if column_axis not in {*sure, *without}
        ]
        for column_axes in _subsets(sure, doubtful):
            yield from self._filled(batch, column_axes, self._lengths)

    def of_group(
        self, batch: Mapping[str, Any], column_axes: Sequence[ColumnAxis]
    ) -> Iterator[Ragged]:
        """Yield ways to pad axes whose sizes vary together.

        First axes are padded to `ROWS`, others to the lengths of the ladder, beyond it and, if
        they are much shorter than all its lengths, as labels of audio are, far below it.
        """
        if self._left & {name for name, _ in column_axes}:
            return
        first = any(axis == 0 for _, axis in column_axes)
        sizes = _far_below(self._lengths[0]) + self._lengths + _beyond(self._lengths[-1])
        ladder = ROWS if first else sizes
        # Padded labels are ignored, so their size is a poor measure; put them last.
        column_axes = sorted(
            column_axes, key=lambda column_axis: bool(_LABEL.search(column_axis[0]))
        )
        filled = list(self._filled(batch, column_axes, ladder))
        yield filled[0]
        if first:  # repeated entries are always valid for forward
            fills = filled[0].fills
            repeated = {
                name: fill if fill == _IGNORED or name in self._user_fills else None
                for name, fill in fills.items()
            }
            yield filled[0]._replace(fills=repeated)
        yield from filled[1:]

    def _axes_of(self, batch: Mapping[str, Any], length: int) -> list[ColumnAxis]:
        return [
            (name, axis)
            for name, column in batch.items()
            if _has_axes(column) and name not in self._left
            for axis in range(1, column.ndim)
            if column.shape[axis] == length
        ]

    def _filled(
        self, batch: Mapping[str, Any], column_axes: Sequence[ColumnAxis], ladder: tuple[int, ...]
    ) -> Iterator[Ragged]:
        """Yield the axes with their most probable fills, then with one fill changed at a time."""
        names = dict.fromkeys(name for name, _ in column_axes)
        choices = {name: self._fills(name, batch[name]) for name in names}
        best: dict[str, float | None] = {name: fills[0] for name, fills in choices.items()}
        yield Ragged(tuple(column_axes), best, ladder)
        for name, fills in choices.items():
            for fill in fills[1:]:
                yield Ragged(tuple(column_axes), {**best, name: fill}, ladder)

    def _fills(self, name: str, column: Tensor) -> list[float]:
        if name in self._user_fills:
            return [self._user_fills[name]]
        kind = column.dtype
        ignored = [_IGNORED] if holds(kind, _IGNORED) else []
        if name in self._rules and name != LABELS and holds(kind, self._rules[name]):
            return [self._rules[name]]
        if kind.is_floating_point and name != LABELS:
            return [0.0]
        return [*ignored, 0] if _LABEL.search(name) else [0, *ignored]


def _subsets(sure: list[ColumnAxis], doubtful: list[ColumnAxis]) -> Iterator[list[ColumnAxis]]:
    """Yield all axes, then all but some of the doubtful ones: an axis, a column, or all."""
    columns = list(dict.fromkeys(name for name, _ in doubtful))

    def candidates() -> Iterator[list[ColumnAxis]]:
        yield doubtful
        for column_axis in doubtful:
            yield [other for other in doubtful if other != column_axis]
        for name in columns:
            yield [column_axis for column_axis in doubtful if column_axis[0] != name]
        yield []
        for name in columns:
            yield [column_axis for column_axis in doubtful if column_axis[0] == name]

    distinct = dict.fromkeys(tuple(subset) for subset in candidates())
    for subset in itertools.islice(distinct, _MOST):
        yield [*sure, *subset]


def _has_axes(column: Any) -> bool:
    return isinstance(column, Tensor) and column.ndim >= 2


def _far_below(first: int) -> tuple[int, ...]:
    """Return the numbers 2^n from 32 to an eighth of `first`."""
    return tuple(2**power for power in range(5, 30) if 8 * 2**power <= first)


def _beyond(last: int) -> tuple[int, ...]:
    """Return the numbers 2^n and 3 * 2^n above `last`."""
    powers = [2**power for power in range(1, 30)]
    return tuple(sorted(n for p in powers for n in (2 * p, 3 * p) if n > last))
