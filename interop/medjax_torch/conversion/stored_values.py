"""What forward stores in plain values of the component, and who reads it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from medjax_torch.component_state.locations import Effect
from medjax_torch.component_state.watch import Place
from medjax_torch.graph import Graph, TraceError
from medjax_torch.graph.caches import Caches
from medjax_torch.graph.counters import affected, influential, makes_a_difference, refusal
from medjax_torch.graph.errors import StoredValueError
from medjax_torch.graph.kept_up import KeptUp, LaterRuns
from medjax_torch.graph.reshaped import sees_shape
from medjax_torch.graph.trial import Trial

logger = logging.getLogger("medjax")


class StoredValues:
    """What forward stores in plain values, in training and in evaluation.

    Tracing undoes it, and a graph does none of it. Flags that forward sets and steps that it counts
    are repeated after each step; everything else keeps the value that it had before, so nothing
    may depend on it. A constant that is computed once and kept is computed in every graph.

    Attributes
    ----------
    caches : Caches
        The constants that are computed once and kept.
    """

    def __init__(self) -> None:
        self.caches = Caches()
        self._idle: dict[bool, set[str]] = {True: set(), False: set()}
        self._kept: dict[bool, dict[str, KeptUp]] = {True: {}, False: {}}
        self._lost: dict[bool, dict[str, Effect]] = {True: {}, False: {}}
        self._no_effect: dict[bool, set[str]] = {True: set(), False: set()}  # of the other phase
        self._warned: set[str] = set()

    def examine(self, graph: Graph, trial: Trial, places: Sequence[Place]) -> set[str]:
        """Find out what a new graph stores, and whether it depends on what was stored before.

        Parameters
        ----------
        graph : Graph
            The graph.
        trial : Trial
            Records forward again.
        places : sequence of Place
            The places that forward may have read.

        Returns
        -------
        set of str
            Paths of what it stores and is not repeated, as far as they are new.

        Raises
        ------
        TraceError
            If forward depends on what it has stored and what is not repeated. `StoredValueError`
            if the other phase stores it.
        """
        train, idle = graph.train, self._idle[graph.train]
        later = LaterRuns(graph)
        trial = trial._replace(record=later.watching(trial.record))
        decisive = influential(graph, trial, idle)
        unexplained = self.caches.unexplained(graph, trial, decisive)
        if unexplained:
            raise refusal(graph, unexplained)
        left = {*graph.counters, *(effect.path for effect in graph.effects)}
        idle.update(left - self.caches.paths)
        for name in graph.reshaped.keys() - idle:
            _refuse_shape(graph, name, trial)
            idle.add(name)
        self._keep_up(later.kept_up(), decisive, places, train=train)
        lost = {e.path: e for e in graph.effects if self._is_lost(e, train=train)}
        new = lost.keys() - self._lost[train].keys()
        self._lost[train] |= lost
        self._examine_others(graph, trial, places)
        return new

    def _keep_up(
        self,
        found: Mapping[str, KeptUp],
        decisive: Collection[str],
        places: Sequence[Place],
        *,
        train: bool,
    ) -> None:
        """Keep up flags and counts, but those in containers and those that say what a cache holds.

        A container is compared as a whole before each step, and caches are empty again by then.
        """
        if not found:
            return
        inside = [place.path for place in places if isinstance(place.location.get(), _CONTAINERS)]
        for path, kept in found.items():
            is_of_cache = path in decisive or (path in self.caches.paths and not kept.by)
            if not is_of_cache and not are_read([path], inside):
                self._kept[train].setdefault(path, kept)

    def examine_evaluation(self, run: Callable[[], Any]) -> None:
        """Find out whether an evaluation in torch depends on what training stores; see `examine`.

        Parameters
        ----------
        run : callable
            Evaluates a batch and returns what can be compared.
        """
        known = self._no_effect[False]
        stored = [effect for path, effect in self._lost[True].items() if path not in known]
        found = [effect.path for effect in stored if makes_a_difference(effect, run)]
        known.update({effect.path for effect in stored}.difference(found))
        _refuse_others(found, train=False)

    def kept(self, *, train: bool) -> Collection[str]:
        """Return the paths of what is repeated and does not affect forward itself."""
        return self._kept[train].keys()

    def repeat(self, graph: Graph, times: int = 1) -> None:
        """Do what forward would have done to flags and counts in so many steps with a graph."""
        for effect in graph.effects:
            if (kept := self._repeated(effect, train=graph.train)) is not None:
                kept.repeat(times)

    def warn(self, graph: Graph) -> None:
        """Warn once of each path that forward stores something in, if it is not repeated."""
        paths = {e.path for e in graph.effects if self._is_lost(e, train=graph.train)}
        new = sorted(paths - self._warned)
        if new:
            self._warned.update(new)
            logger.warning(
                "forward stores something in %s, which is not kept: whatever reads it finds the "
                "value from before training. Return it as an output, or keep it in a tensor "
                "(register_buffer, or an attribute that holds one from the beginning)",
                ", ".join(new),
            )

    def _is_lost(self, effect: Effect, *, train: bool) -> bool:
        """Return whether what forward stores is neither repeated nor computed in every graph."""
        return self._repeated(effect, train=train) is None and effect.path not in self.caches.paths

    def _repeated(self, effect: Effect, *, train: bool) -> KeptUp | None:
        """Return what is repeated of an effect, as the graph at hand has it."""
        kept = self._kept[train].get(effect.path)
        if kept is None:
            return None
        if kept.by:
            counts = type(effect.before) is type(effect.after) is int
            return kept if counts and effect.after - effect.before == kept.by else None
        return kept._replace(value=effect.after) if type(effect.after) is type(kept.value) else None

    def _examine_others(self, graph: Graph, trial: Trial, places: Sequence[Place]) -> None:
        """Raise StoredValueError if a graph depends on what the other phase stores."""
        paths = [place.path for place in places]
        others = self._lost[not graph.train]
        known = self._no_effect[graph.train]
        stored = [e for path, e in others.items() if path not in known and are_read([path], paths)]
        found = affected(graph, stored, trial)
        known.update({effect.path for effect in stored}.difference(found))
        _refuse_others(found, train=graph.train)


_CONTAINERS = (dict, list, tuple, set)


def are_read(stored: Iterable[str], read: Iterable[str]) -> bool:
    """Return whether a path is read, by itself or as a part of what is read, or contains it."""
    paths = set(read)
    return any(
        path in paths
        or any(path.startswith(f"{each}.") or each.startswith(f"{path}.") for each in paths)
        for path in stored
    )


def _refuse_shape(graph: Graph, name: str, trial: Trial) -> None:
    """Raise TraceError if forward depends on the shape of a tensor that it replaces."""
    if sees_shape(graph, name, trial):
        shape = tuple(trial.inventory.tensors[name].shape)
        raise TraceError(
            f"forward replaces {name}, of shape {shape}, by a tensor of another shape or dtype, "
            "and what it computes depends on it: a graph would see the old one at every step. "
            "Give it its final shape in __init__, and write to it."
        )


def _refuse_others(found: Sequence[str], *, train: bool) -> None:
    """Raise StoredValueError if forward depends on Python values that the other phase stores."""
    if found:
        first, then = ("evaluation", "training") if train else ("training", "evaluation")
        raise StoredValueError(
            f"forward reads {', '.join(found)} in {then}, which it computes in {first} but does "
            "not keep: it would find the value from before training at every step. Keep it in a "
            "buffer (register_buffer, or a tensor in an attribute), or let a callback set it."
        )
