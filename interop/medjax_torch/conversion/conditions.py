"""Under which conditions a graph is what forward does: what forward read besides its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from medjax_torch.component_state.watch import Place, Places
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.graph.numbers import Number, is_number


class Conditions:
    """What forward found when it was recorded.

    Parameters
    ----------
    reads : ColumnReads
        What it read of the batch.
    places : sequence of Place
        Where it read other Python values.
    numbers : sequence of Number
        Of these, those that are inputs.
    batch : mapping of str to value
        The batch that was recorded.
    """

    def __init__(
        self,
        reads: ColumnReads,
        places: Sequence[Place],
        numbers: Sequence[Number],
        batch: Mapping[str, Any],
    ) -> None:
        self.numbers = tuple(numbers)
        self._live = {number.column for number in numbers if number.column is not None}
        self._reads = reads
        self._columns = reads.of(batch, self._live)
        self._kinds = [_kind(number, batch) for number in numbers]
        locations = [number.location for number in numbers if number.location is not None]
        self._places = Places(place for place in places if not _is_among(place, locations))

    def hold(self, batch: Mapping[str, Any]) -> bool:
        """Tell whether forward would find the same with this batch now, inputs aside."""
        return (
            self._reads.of(batch, self._live) == self._columns
            and self._places.hold()
            and [_kind(number, batch) for number in self.numbers] == self._kinds
        )

    def changed_columns(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the columns with another value than forward read."""
        now = dict(self._reads.of(batch, self._live)[0])
        return [name for name, value in self._columns[0] if now[name] != value]

    def changed_places(self) -> list[Place]:
        """Return the places outside of the batch with another value than forward read."""
        return self._places.changed()

    def number_columns(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the columns that forward read, which hold floats or a list of numbers."""
        read = self._reads.values - self._live
        held = {name: batch[name] for name in read if name in batch}
        return [n for n, v in held.items() if is_number(v) and not isinstance(v, int)]


def _kind(number: Number, batch: Mapping[str, Any]) -> Any:
    """Return what the input of a number is compiled for, None if it is no number any more."""
    try:
        value = number.value(batch)
    except KeyError:
        return None
    if not is_number(value):
        return None
    return (len(value), type(value[0])) if isinstance(value, list | tuple) else type(value)


def _is_among(place: Place, locations: Collection[Any]) -> bool:
    return any(
        place.location is location
        or (
            getattr(place.location, "holder", place) is getattr(location, "holder", location)
            and getattr(place.location, "key", place) == getattr(location, "key", location)
        )
        for location in locations
    )
