"""The conditions under which a graph is valid: what forward read besides its inputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from medjax_torch.component_state.watch import Place, Places
from medjax_torch.component_state.watch.places import token
from medjax_torch.conversion.column_reads import ColumnReads
from medjax_torch.graph import Graph
from medjax_torch.graph.numbers import Number, is_number


class Conditions:
    """The values that forward read when it was recorded.

    Parameters
    ----------
    reads : ColumnReads
        The batch columns that it read.
    places : sequence of Place
        The places where it read other Python values.
    numbers : sequence of Number
        The numbers among them that are inputs.
    batch : mapping of str to value
        The batch that was recorded.
    own : collection of int
        See `Places`.
    """

    def __init__(
        self,
        reads: ColumnReads,
        places: Sequence[Place],
        numbers: Sequence[Number],
        batch: Mapping[str, Any],
        own: Collection[int] | None = None,
    ) -> None:
        self.numbers = tuple(numbers)
        self._live = {number.column for number in numbers if number.column is not None}
        self._reads = reads
        self._columns = reads.of(batch, self._live)
        self._kinds = [_kind(number, batch) for number in numbers]
        locations = [number.location for number in numbers if number.location is not None]
        self._places = Places((p for p in places if not _is_among(p, locations)), own)

    def hold(self, batch: Mapping[str, Any]) -> bool:
        """Return whether forward would now read the same values for this batch, inputs aside."""
        return (
            self._reads.of(batch, self._live) == self._columns
            and self._places.hold()
            and [_kind(number, batch) for number in self.numbers] == self._kinds
        )

    def changed_columns(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the columns whose value differs from the one that forward read."""
        current = dict(self._reads.of(batch, self._live)[0])
        return [name for name, value in self._columns[0] if current[name] != value]

    def changed_places(self) -> list[Place]:
        """Return the places outside the batch whose value differs from what forward read."""
        return self._places.changed()

    def number_columns(self, batch: Mapping[str, Any]) -> list[str]:
        """Return the columns that forward read and that hold a float or a list of numbers."""
        read = self._reads.values - self._live
        values = {name: batch[name] for name in read if name in batch}
        return [n for n, v in values.items() if is_number(v) and not isinstance(v, int)]


def said_of_returned(graph: Graph, others: Collection[Conditions], batch: Mapping[str, Any]) -> str:
    """Return a message if forward returns the columns in which a batch differs from others.

    Parameters
    ----------
    graph : Graph
        The graph of the batch.
    others : collection of Conditions
        The conditions of the graphs of other batches.
    batch : mapping of str to value
        The batch.

    Returns
    -------
    str
        Empty if there is another difference too.
    """
    if graph.guards or any(each.changed_places() for each in others):
        return ""
    outputs = [token(value) for value in graph.outputs.fixed.values()]
    names = sorted({name for each in others for name in each.changed_columns(batch)})
    if not names or any(token(batch.get(name)) not in outputs for name in names):
        return ""
    return (
        f"forward returns the column {' and '.join(map(repr, names))} as an output. Outputs that "
        f"are no tensors belong to a graph, so a graph was traced and compiled for each of "
        f"{len(others) + 1} batches. Leave it out of the outputs, and take it from input_batch in "
        "the metrics computer's prepare_batch."
    )


def _kind(number: Number, batch: Mapping[str, Any]) -> Any:
    """Return the kind of value that a number's input is compiled for, None if not a number now."""
    try:
        value = number.value(batch)
    except KeyError:
        return None
    if not is_number(value):
        return None
    return (len(value), type(value[0])) if isinstance(value, list | tuple) else type(value)


def _is_among(place: Place, locations: Collection[Any]) -> bool:
    return any(_where(place.location) == _where(location) for location in locations)


def _where(location: Any) -> tuple[int, Any]:
    """Return the identity of what holds a value, and the name under which it does."""
    holder = getattr(location, "cell", None) or getattr(location, "holder", location)
    return id(holder), getattr(location, "key", getattr(location, "name", None))
