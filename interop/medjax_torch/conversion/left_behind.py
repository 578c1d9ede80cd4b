"""What forward leaves in the component for its next run: it may affect no result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from medjax_torch.component_state import Inventory
from medjax_torch.graph import Graph, Rules
from medjax_torch.graph.caches import Caches
from medjax_torch.graph.counters import influential, refusal
from medjax_torch.graph.joint import Call
from medjax_torch.graph.left_values import left_values
from medjax_torch.graph.numbers import Number
from medjax_torch.graph.trial import Trial
from medjax_torch.verification import agree


class LeftBehind:
    """Tries out, for each new graph, what follows from the values that runs of forward leave.

    Attributes
    ----------
    caches : Caches
        The values that are computed once and kept.
    """

    def __init__(self) -> None:
        self.caches = Caches()
        self._idle: dict[bool, set[str]] = {True: set(), False: set()}

    def check(self, graph: Graph, trial: Trial) -> None:
        """Raise TraceError if results depend on values that earlier runs of forward left."""
        idle = self._idle[graph.train]
        paths = self.caches.unexplained(graph, trial, influential(graph, trial, idle))
        if paths:
            raise refusal(graph, paths)
        left = {*graph.counters, *(effect.path for effect in graph.left)}
        idle.update(left - self.caches.paths)


def trial(
    record: Callable[[], Graph],
    call: Call,
    inventory: Inventory,
    batch: Mapping[str, Any],
    *,
    train: bool,
    rules: Rules,
    numbers: Sequence[Number],
    changing: Collection[str],
) -> Trial:
    """Return how forward is recorded again for a kind of batch.

    Parameters
    ----------
    record : callable
        Records forward as `trace` did, with the other arguments.
    call, inventory, batch, train, rules, numbers, changing
        As for `trace`.
    """
    left = partial(
        left_values,
        call,
        inventory,
        batch,
        train=train,
        rules=rules,
        numbers=numbers,
        changing=changing,
    )
    return Trial(inventory, record, left, partial(agree, inventory=inventory, batch=batch))
