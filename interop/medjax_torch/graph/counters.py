"""Whether a number that forward counts up is only kept, or decides about what forward computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

from medjax_torch.graph.record import Graph, same


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
    slots = {place.path: place.slot for place in graph.places}
    return [
        path
        for path in graph.counters
        if path not in known and _decides(graph, slots.get(path), again)
    ]


def _decides(graph: Graph, slot: Any, again: Callable[[], Graph]) -> bool:
    if slot is None:
        return True
    before = slot.get()
    try:
        for value in _others(before):
            slot.set(value)
            if not same(graph, again()):
                return True
    except Exception:  # another value leads somewhere that cannot be recorded
        return True
    finally:
        slot.set(before)
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
