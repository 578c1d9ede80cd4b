"""Recordings of forward with values that its earlier runs may have left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor

from medjax_torch.component_state import Inventory, swapped
from medjax_torch.component_state.locations import MISSING, Entry, Location
from medjax_torch.graph.graph import Graph, same
from medjax_torch.graph.left_values import Left

State = Mapping[str, tuple[Location, Any]]
"""Values by path, and the locations to put them in."""


class Trial(NamedTuple):
    """How one kind of batch is recorded and compared.

    Attributes
    ----------
    inventory : Inventory
        The component's content.
    record : callable
        Records forward again.
    left : callable
        Takes locations by path; returns what forward leaves there, as `left_values` does.
    alike : callable
        Returns whether two graphs of these batches compute the same numbers, whatever the weights;
        those of the names it is given stay as they are.
    """

    inventory: Inventory
    record: Callable[[], Graph]
    left: Callable[[Mapping[str, Location]], Left]
    alike: Callable[[Graph, Graph, Collection[str]], bool]

    def record_with(self, state: State) -> Graph:
        """Record forward with values that earlier runs have left."""
        with self._holding(state):
            return self.record()

    def record_reshaped(self, name: str, tensor: Tensor) -> Graph:
        """Record forward with another tensor in place of one of the component's."""
        inventory = self.inventory
        tensors = inventory.buffers if name in inventory.buffers else inventory.parameters
        before = tensors[name]
        try:
            for place in (*inventory.locations[name], Entry(tensors, name)):
                place.set(tensor)
            return self.record()
        finally:
            for place in (*inventory.locations[name], Entry(tensors, name)):
                place.set(before)

    def left_with(self, state: State, places: Mapping[str, Location]) -> Left:
        """Return what forward leaves after earlier runs have left `state`."""
        with self._holding(state):
            return self.left(places)

    @contextmanager
    def _holding(self, state: State) -> Iterator[None]:
        before = [(location, location.get()) for location, _ in state.values()]
        try:
            with swapped(self.inventory, {}):
                for location, value in state.values():
                    location.set(value)
                yield
        finally:
            for location, value in before:
                if value is not MISSING and location.get() is not value:
                    location.set(value)

    def agree(self, first: Graph, second: Graph, sources: Collection[str]) -> bool:
        """Return whether two graphs are the same, or compute the same numbers.

        Parameters
        ----------
        first, second : Graph
            The graphs.
        sources : collection of str
            Names of the state that constants were computed from.
        """
        return same(first, second) or self.alike(first, second, sources)
