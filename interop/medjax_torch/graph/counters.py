"""Whether a number that forward counts up is only kept, or decides about what forward computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from medjax_torch.graph.graph import Graph, same


def influential(graph: Graph, again: Callable[[], Graph], known: Collection[str] = ()) -> list[str]:
    """Return the paths of the counters of a graph that decide, found by experiment.

    Parameters
    ----------
    graph : Graph
        What was recorded.
    again : callable
        Records forward once more.
    known : collection of str
        Those that are known to decide nothing.
    """
    locations = {place.path: place.location for place in graph.places}
    return [
        path
        for path in graph.counters
        if path not in known and _decides(graph, locations.get(path), again)
    ]


def _decides(graph: Graph, location: Any, again: Callable[[], Graph]) -> bool:
    if location is None:
        return True
    before = location.get()
    try:
        for value in _others(before):
            location.set(value)
            if not same(graph, again()):
                return True
    except Exception:  # another value leads somewhere that cannot be recorded
        return True
    finally:
        location.set(before)
    return False


def _others(value: Any) -> Iterator[Any]:
    """Yield other values of the kind that a counter has, near and far."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value + 1_000)
    elif isinstance(value, float):
        yield from (0.0, 1e6)
    else:
        yield f"{value} otherwise"
