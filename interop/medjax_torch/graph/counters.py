"""Whether a number that forward counts up is only stored or affects what forward computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from medjax_torch.graph.graph import Graph, same


def influential(graph: Graph, again: Callable[[], Graph], known: Collection[str] = ()) -> list[str]:
    """Return the paths of the counters that affect what a graph computes, found by experiment.

    Parameters
    ----------
    graph : Graph
        The recorded graph.
    again : callable
        Records forward again.
    known : collection of str
        Paths of counters that are known to have no effect.
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
    except Exception:  # forward cannot be recorded with another value
        return True
    finally:
        location.set(before)
    return False


def _others(value: Any) -> Iterator[Any]:
    """Yield other values of a counter's type, both close to its value and far from it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value + 1_000)
    elif isinstance(value, float):
        yield from (0.0, 1e6)
    else:
        yield f"{value} otherwise"
