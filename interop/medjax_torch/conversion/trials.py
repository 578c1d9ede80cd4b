"""How forward is recorded again for a kind of batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from medjax_torch.component_state import Inventory
from medjax_torch.graph import Graph, Rules
from medjax_torch.graph.joint import Call
from medjax_torch.graph.left_values import left_values
from medjax_torch.graph.numbers import Number
from medjax_torch.graph.trial import Trial
from medjax_torch.verification import agree


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
