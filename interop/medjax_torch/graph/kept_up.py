"""What forward does to plain values of the component that can be repeated after each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from medjax_torch.component_state.locations import Effect, Location
from medjax_torch.graph.graph import Graph


class KeptUp(NamedTuple):
    """A flag that forward sets, or a step that it counts.

    Attributes
    ----------
    path : str
        Its name in messages.
    location : Location
        Where it is.
    value : bool or str
        What forward sets it to; without a meaning if it counts.
    by : int
        What forward adds to it, 0 if it does not count.
    """

    path: str
    location: Location
    value: Any = None
    by: int = 0

    def repeat(self, times: int) -> None:
        """Do what forward does, so many times."""
        if not self.by:
            self.location.set(self.value)
        elif isinstance(before := self.location.get(), int | float):
            self.location.set(before + self.by * times)


class LaterRuns:
    """Recordings of forward that begin with what an earlier one left.

    Parameters
    ----------
    graph : Graph
        The earlier recording.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._runs: list[tuple[dict[str, Any], Graph]] = []

    def watching(self, record: Callable[[], Graph]) -> Callable[[], Graph]:
        """Return a function that records forward as `record` does, and is noticed."""

        def noticed() -> Graph:
            found = {effect.path: effect.location.get() for effect in self._graph.effects}
            graph = record()
            self._runs.append((found, graph))
            return graph

        return noticed

    def kept_up(self) -> dict[str, KeptUp]:
        """Return what a later run repeats, by path.

        That is a bool or a string which it leaves as the earlier one left it, and a number to which
        both add 1, or subtract 1, however large it is. Other numbers may be sizes of the batch,
        which padding changes, and where forward looks at values of tensors all may depend on these.
        """
        if self._graph.on_values:
            return {}
        found = map(self._repeated, self._graph.effects)
        return {each.path: each for each in found if each is not None}

    def _repeated(self, effect: Effect) -> KeptUp | None:
        path, after = effect.path, effect.after
        if type(after) not in (bool, str, int):
            return None
        if type(after) is not int and any(type(e.after) is not str for e in self._graph.filled_in):
            return None  # the flag may stand for an object, which is not kept
        # What later runs found and left there, which is the same if they left it alone.
        runs = [(found[path], _left(graph, path, found[path])) for found, graph in self._runs]
        runs = [(before, then) for before, then in runs if type(before) is type(after)]
        if type(after) is not int:
            stays = [_equal(then, after) for before, then in runs if before == after]
            return KeptUp(path, effect.location, after) if stays and all(stays) else None
        if type(effect.before) is not int or (by := after - effect.before) not in (1, -1):
            return None
        counts = [type(then) is int and then - before == by for before, then in runs]
        return KeptUp(path, effect.location, by=by) if len(counts) > 1 and all(counts) else None


def _left(graph: Graph, path: str, before: Any) -> Any:
    return next((effect.after for effect in graph.effects if effect.path == path), before)


def _equal(then: Any, after: Any) -> bool:
    return type(then) is type(after) and bool(then == after)
