"""What may be ragged in a batch and how it may be padded, for a proof to decide."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from medjax_torch.batches.padding import ROWS, Ragged, Slot, holds, padding_rules

LABELS = "labels"
"""The ragged column that other tasks use for something else, such as one entry for each class."""

_IGNORED = -100
"""The ``ignore_index`` of torch's cross entropy."""

_LABEL = re.compile(r"label|target|tag|class|(^|_)y($|_)", re.IGNORECASE)

_MOST = 16  # guesses, each of which costs a forward pass or more


class Guesses:
    """What to try, the most probable first.

    Parameters
    ----------
    padding : mapping of str to float or None
        `Options.padding`: fills of the user's, None for columns that are never padded.
    lengths : sequence of int
        `Options.length_ladder`.
    """

    def __init__(self, padding: Mapping[str, float | None], lengths: Sequence[int]) -> None:
        self._given = {name: fill for name, fill in padding.items() if fill is not None}
        self._rules = padding_rules(padding)
        self._left = {name for name, fill in padding.items() if fill is None}
        self._lengths = tuple(lengths)

    def of_length(self, batch: Mapping[str, Any], without: set[Slot]) -> Iterator[Ragged]:
        """Yield which axes may be as long as the batch's texts.

        The first column of the rules that the batch has, other than ``labels``, sets the length
        by its second axis, and other columns of the rules that agree have it too. What agrees
        besides, ``labels`` included, may do so by accident.

        Parameters
        ----------
        batch : mapping
            A batch.
        without : set of (str, int)
            Axes that are known not to be ragged.
        """
        tensors = {name: batch[name] for name in self._rules if _has_axes(batch.get(name))}
        anchors = [name for name in tensors if name != LABELS]
        length = tensors[anchors[0]].shape[1] if anchors else 0
        sure = [(name, 1) for name in anchors if tensors[name].shape[1] == length]
        if not length or not without.isdisjoint(sure):
            return
        doubtful = [slot for slot in self._slots_of(batch, length) if slot not in {*sure, *without}]
        for slots in _subsets(sure, doubtful):
            yield from self._filled(batch, slots, self._lengths)

    def of_group(self, batch: Mapping[str, Any], slots: Sequence[Slot]) -> Iterator[Ragged]:
        """Yield how axes may be padded that were seen to vary together.

        First axes are padded to `ROWS`, others to the lengths of the ladder and beyond.
        """
        if self._left & {name for name, _ in slots}:
            return
        first = any(axis == 0 for _, axis in slots)
        ladder = ROWS if first else self._lengths + _beyond(self._lengths[-1])
        # A label, which is ignored where a constant pads it, is a bad measure of the size.
        slots = sorted(slots, key=lambda slot: bool(_LABEL.search(slot[0])))
        filled = list(self._filled(batch, slots, ladder))
        yield filled[0]
        if first:  # entries that occur are ones that forward can take
            fills = filled[0].fills
            repeated = {
                name: fill if fill == _IGNORED or name in self._given else None
                for name, fill in fills.items()
            }
            yield filled[0]._replace(fills=repeated)
        yield from filled[1:]

    def _slots_of(self, batch: Mapping[str, Any], length: int) -> list[Slot]:
        return [
            (name, axis)
            for name, column in batch.items()
            if _has_axes(column) and name not in self._left
            for axis in range(1, column.ndim)
            if column.shape[axis] == length
        ]

    def _filled(
        self, batch: Mapping[str, Any], slots: Sequence[Slot], ladder: tuple[int, ...]
    ) -> Iterator[Ragged]:
        """Yield the axes with the most probable fills, then with one of them changed."""
        names = dict.fromkeys(name for name, _ in slots)
        choices = {name: self._fills(name, batch[name]) for name in names}
        best: dict[str, float | None] = {name: fills[0] for name, fills in choices.items()}
        yield Ragged(tuple(slots), best, ladder)
        for name, fills in choices.items():
            for fill in fills[1:]:
                yield Ragged(tuple(slots), {**best, name: fill}, ladder)

    def _fills(self, name: str, column: Tensor) -> list[float]:
        if name in self._given:
            return [self._given[name]]
        kind = column.dtype
        ignored = [_IGNORED] if holds(kind, _IGNORED) else []
        if name in self._rules and name != LABELS and holds(kind, self._rules[name]):
            return [self._rules[name]]
        if kind.is_floating_point and name != LABELS:
            return [0.0]
        return [*ignored, 0] if _LABEL.search(name) else [0, *ignored]


def _subsets(sure: list[Slot], doubtful: list[Slot]) -> Iterator[list[Slot]]:
    """Yield all axes, then without the doubtful ones, one column at a time and all of them."""
    columns = list(dict.fromkeys(name for name, _ in doubtful))

    def found() -> Iterator[list[Slot]]:
        yield doubtful
        for slot in doubtful:
            yield [other for other in doubtful if other != slot]
        for name in columns:
            yield [slot for slot in doubtful if slot[0] != name]
        yield []
        for name in columns:
            yield [slot for slot in doubtful if slot[0] == name]

    distinct = dict.fromkeys(tuple(subset) for subset in found())
    for subset in itertools.islice(distinct, _MOST):
        yield [*sure, *subset]


def _has_axes(column: Any) -> bool:
    return isinstance(column, Tensor) and column.ndim >= 2


def _beyond(last: int) -> tuple[int, ...]:
    """Return twice and three times the powers of two above `last`."""
    powers = [2**power for power in range(1, 30)]
    return tuple(sorted(n for p in powers for n in (2 * p, 3 * p) if n > last))
