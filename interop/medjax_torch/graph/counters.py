"""Whether a number that forward counts up is only stored or affects what forward computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medjax_torch.component_state.locations import MISSING, Effect, Location, Whole
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.graph import Graph, same
from medjax_torch.graph.trial import Trial


def refusal(graph: Graph, paths: Sequence[str]) -> TraceError:
    """Return the error for a forward whose results depend on what its earlier runs left."""
    numbers = {effect.path for effect in graph.effects if not isinstance(effect.after, Tensor)}
    numbers |= {*graph.counters, *(effect.path for effect in _iterators(graph))}
    if numbers.intersection(paths):
        return TraceError(
            f"forward both reads and changes {', '.join(paths)}: a graph would see the same value "
            "at every step. Keep it in a buffer (register_buffer, or a tensor in an attribute) and "
            "compute with torch.clamp and torch.where instead of min and if, or let a callback set "
            "it."
        )
    return TraceError(
        f"forward both reads and changes {', '.join(paths)}, and its results depend on what was "
        "there before: a graph would see the same value at every step. Compute such a tensor in "
        "__init__ or on every call; if it should change from step to step, register a buffer of "
        "its shape in __init__, and write to it."
    )


def influential(graph: Graph, trial: Trial, known: Collection[str] = ()) -> list[str]:
    """Return the paths of the counters that affect what a graph computes, found by experiment.

    Parameters
    ----------
    graph : Graph
        The recorded graph.
    trial : Trial
        Records forward again.
    known : collection of str
        Paths of counters that are known to have no effect.
    """
    locations = {place.path: place.location for place in graph.places}
    counters = [
        path
        for path in graph.counters
        if path not in known and _decides(graph, path, locations.get(path), trial)
    ]
    left = [(e, _near(e)) for e in graph.effects]
    left += [(e, MISSING) for e in _iterators(graph)]
    left = [(effect, value) for effect, value in left if value is not _UNKNOWN]
    everything = left
    left = [(e, value) for e, value in left if e.path not in {*known, *graph.counters}]
    if not left:
        return counters
    # First all of them together: forward is recorded twice at most where none has an effect. A
    # counter may also decide whether the others are read.
    if _matters(graph, everything, trial):
        alone = [effect.path for effect, value in left if _matters(graph, [(effect, value)], trial)]
        counters += alone or [effect.path for effect, _ in left]
    return counters


def affected(graph: Graph, stored: Sequence[Effect], trial: Trial) -> list[str]:
    """Return the paths of what was stored elsewhere, and what a graph computes depends on."""
    found = [(effect, _near(effect)) for effect in stored]
    return [
        effect.path
        for effect, value in found
        if value is _UNKNOWN or _matters(graph, [(effect, value)], trial)
    ]


def makes_a_difference(effect: Effect, run: Callable[[], Any]) -> bool:
    """Return whether `run` returns something else once a value was left, or another one."""
    near, before = _near(effect), effect.location.get()
    if near is _UNKNOWN:
        return False
    values = [near]
    if isinstance(near, int | float) and not isinstance(near, bool):
        values += [type(near)(value) for value in (-1e6, 0, 1e6)]  # no threshold is between
    first = run()
    try:
        for value in values:
            effect.location.set(value)
            if run() != first:
                return True
    except Exception:  # forward cannot be run with another value
        return True
    finally:
        effect.location.set(before)
    return False


_UNKNOWN: Any = object()
"""The value of what was left in a form that only exists while forward is recorded."""

_FAR = 1_000
_COMMON = 1_386_000
"""Beyond most thresholds, and a multiple of what steps are counted by: 1 to 12, 100, 500, 2,000.

Forward may look at a count before or after it counts.
"""


def _matters(graph: Graph, left: Sequence[tuple[Effect, Any]], trial: Trial) -> bool:
    """Return whether a graph differs after values were left, once or as often as in training.

    Values that a second run leaves unchanged were computed once and for all; they do not grow.
    """
    state = {e.path: (e.location, e.after) for e in graph.filled_in}
    state |= {e.path: (e.location, value) for e, value in left if value is not MISSING}
    try:
        second = trial.record_with(state)
        if not same(graph, second):
            return True
        changing = {effect.path for effect in second.effects} | set(second.counters)
        growing = [(e, value) for e, value in left if e.path in changing or value is MISSING]
        counts = any(type(value) is int for _, value in growing)
        for last in (_COMMON, _COMMON - 1) if counts else (_COMMON,):
            fars = ((e, _far(e, value, last)) for e, value in growing)
            later = {e.path: (e.location, far) for e, far in fars if far is not _UNKNOWN}
            if later and not same(graph, trial.record_with({**state, **later})):
                return True
        return False
    except Exception:  # forward cannot be recorded with another value
        return True


def _iterators(graph: Graph) -> Iterator[Effect]:
    """Yield the iterators that forward reads, which it can only do to advance them."""
    for place in graph.places:
        value = place.location.get()
        if isinstance(value, Iterator) and not hasattr(value, "__dict__"):
            yield Effect(place.path, value, value, place.location)


def _near(effect: Effect) -> Any:
    """Return what the second run of forward finds, `_UNKNOWN` if that cannot be kept."""
    return effect.after if effect.after is MISSING else _kept(effect.after)


def _kept(value: Any) -> Any:
    if isinstance(value, Tensor):
        if not all(type(size) is int for size in value.shape):
            return _UNKNOWN
        return torch.zeros(tuple(value.shape), dtype=value.dtype)
    if isinstance(value, np.ndarray):
        return value.copy()
    if type(value) in (list, tuple, dict):
        entries = value.values() if isinstance(value, dict) else value
        kept = [_kept(entry) for entry in entries]
        if any(entry is _UNKNOWN for entry in kept):
            return _UNKNOWN
        return dict(zip(value, kept, strict=True)) if isinstance(value, dict) else type(value)(kept)
    return value if type(value) in _PLAIN or isinstance(value, np.generic) else _UNKNOWN


def _far(effect: Effect, near: Any, last: int) -> Any:
    """Return what a run of forward finds after very many others, `last` where it counts."""
    if isinstance(near, np.ndarray):
        return near + _COMMON if near.dtype.kind in "iuf" else _UNKNOWN
    if isinstance(near, bool) or near is MISSING:
        return _advanced(effect.after) if isinstance(effect.after, Iterator) else _UNKNOWN
    if isinstance(near, int):
        return last
    if isinstance(near, float | np.number):
        return near + _FAR
    if not isinstance(effect.location, Whole):
        return _UNKNOWN
    if isinstance(effect.location.holder, set):
        return [*near, *range(10**9, 10**9 + _FAR)]
    if len(near) > len(effect.before):
        return [*near, *near[-1:] * _FAR]
    return [value + _FAR if type(value) in (int, float) else value for value in near]


def _advanced(values: Iterator[Any]) -> Iterator[Any]:
    for value in values:
        yield value + _FAR if type(value) in (int, float) else value


_PLAIN = frozenset({bool, int, float, str, bytes, type(None)})


def _decides(graph: Graph, path: str, location: Location | None, trial: Trial) -> bool:
    if location is None:
        return True
    try:
        beside = {e.path: (e.location, e.after) for e in graph.filled_in}
        states = ({**beside, path: (location, value)} for value in others(location.get()))
        return not all(same(graph, trial.record_with(state)) for state in states)
    except Exception:  # forward cannot be recorded with another value
        return True


def others(value: Any) -> Iterator[Any]:
    """Yield other values of a counter's type, both close to its value and far from it."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | np.integer):
        yield from (value + 1, value + _FAR)
        yield from (_COMMON - 1, _COMMON)
    elif isinstance(value, float | np.floating):
        yield from (0.0, 1e6)
    else:
        yield f"{value} otherwise"
