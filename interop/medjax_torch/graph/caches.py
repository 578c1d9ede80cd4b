"""What forward computes once and keeps: tensors that are constants, with numbers beside them.

The graph computes a cache again in every step. That is what torch computes only if the results do
not depend on what earlier runs of forward have left, which is tried out.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medjax_torch.component_state.locations import Location
from medjax_torch.graph.counters import others
from medjax_torch.graph.graph import Graph, same
from medjax_torch.graph.left_values import UNDECIDED
from medjax_torch.graph.trial import State, Trial

_PLAIN = (bool, int, float, str)


class _Held(NamedTuple):
    """What earlier batches have left, and the names of the state that it was computed from."""

    values: State
    sources: frozenset[str]


class Caches:
    """The caches that forward has filled, as torch would have kept them from batch to batch."""

    def __init__(self) -> None:
        self._held = _Held({}, frozenset())
        self._witnesses: dict[bool, list[tuple[Graph, Trial]]] = {True: [], False: []}

    @property
    def paths(self) -> frozenset[str]:
        """The paths of the caches and of the numbers beside them."""
        return frozenset(self._held.values)

    @property
    def sources(self) -> frozenset[str]:
        """The names of the parameters and buffers that the caches are computed from."""
        return self._held.sources

    def unexplained(self, graph: Graph, trial: Trial, refused: Collection[str]) -> list[str]:
        """Return the paths of values that affect the results and belong to no cache.

        Parameters
        ----------
        graph : Graph
            The graph of a new kind of batch, recorded with no cache filled.
        trial : Trial
            Records such batches again.
        refused : collection of str
            Paths of what this graph leaves and depends on, by `influential`.
        """
        if not refused and not self.paths:
            return []
        try:
            later = self._later(graph, trial, refused)
        except Exception:  # forward cannot be recorded with another value
            later = None
        if later is None:
            return list(refused) or sorted(self.paths)
        self._held = later
        kind = self._witnesses[graph.train]
        # The first kind and the latest: each more would cost a recording for each kind to come.
        kind[1:] = [(graph, trial)]
        return []

    def _later(self, graph: Graph, trial: Trial, refused: Collection[str]) -> _Held | None:
        """Return what torch would hold after this batch, None if results depend on what it held."""
        held, sources = self._held
        first = trial.record_with(held) if held else graph
        if not trial.agree(graph, first, sources):
            return None
        places = _places(graph, first, refused, held)
        left = trial.left_with(held, places)
        wanted = {*refused, *held}
        new = {
            path: (places[path], value)
            for path, value in left.values.items()
            if path in wanted or _is_kept(value)
        }
        later = _Held({**held, **new}, sources | left.sources)
        values = [value for _, value in later.values.values()]
        if not wanted <= later.values.keys() or not all(map(_is_kept, values)):
            return None
        if not any(map(_is_constant, values)) or later.sources.intersection(graph.updated):
            return None
        if all(path in held and _equal(held[path][1], value) for path, (_, value) in new.items()):
            return later
        steady = {p for p, (_, v) in later.values.items() if _is_constant(v) or p in refused}
        again = trial.left_with(later.values, places).values
        if not all(_equal(again.get(p, v), v) for p, (_, v) in later.values.items() if p in steady):
            return None
        return later if self._is_harmless(graph, first, trial, later) else None

    def _is_harmless(self, graph: Graph, first: Graph, trial: Trial, later: _Held) -> bool:
        """Return whether these caches change no result, of earlier kinds of batches included."""
        state, sources = later
        second = trial.record_with(state)
        if not trial.agree(graph, second, sources):
            return False
        for path, (location, value) in state.items():
            for other in () if isinstance(value, Tensor) else others(value):
                third = trial.record_with({**state, path: (location, other)})
                if not any(same(third, one) for one in (graph, first, second)):
                    return False
        return all(
            one.agree(earlier, one.record_with(state), sources)
            for kind in self._witnesses.values()
            for earlier, one in kind
        )


def _places(
    graph: Graph, first: Graph, refused: Collection[str], held: State
) -> dict[str, Location]:
    """Return where forward may leave something, by path."""
    places = {place.path: place.location for place in graph.places if place.path in refused}
    places |= {effect.path: effect.location for effect in (*graph.effects, *first.effects)}
    return places | {path: location for path, (location, _) in held.items()}


def _is_constant(value: Any) -> bool:
    return value is not UNDECIDED and isinstance(value, Tensor)


def _is_kept(value: Any) -> bool:
    return _is_constant(value) or type(value) in _PLAIN


def _equal(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return type(first) is type(second) and bool(first == second)
