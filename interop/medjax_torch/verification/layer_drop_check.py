"""Whether random numbers decide only which layers are left out, checked in torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medjax_torch.component_state import Inventory
from medjax_torch.graph.errors import TraceError
from medjax_torch.graph.joint import Call
from medjax_torch.verification.comparison import differences
from medjax_torch.verification.reference import reference

_TOLERANCE = 1e-3
"""Largest relative difference. Both sides are torch on the same numbers, so nearly all is exact."""

_SHOWN = 8


def check_left_out(call: Call, inventory: Inventory, batch: Mapping[str, Any]) -> None:
    """Compare how a graph leaves out layers with forward's own branch, where all are left out.

    It decides whether there may be a graph at all, so it does not depend on `Options.verify`.

    Parameters
    ----------
    call : Call
        The component's forward, as `graph.trace` takes it.
    inventory : Inventory
        The contents of the component. They are left unchanged.
    batch : mapping of str to value
        A batch.

    Raises
    ------
    TraceError
        If random numbers decide about more than those layers.
    """
    own, chosen = (
        reference(call, inventory, batch, train=True, drops_layers=True, mark=mark)
        for mark in (0.0, 1e-30)  # added where a layer was kept, so nowhere here
    )
    without = {name: chosen.gradients.pop(name) for name in {*chosen.gradients} - {*own.gradients}}
    listing = differences(chosen, own, ("the graph", "torch"))
    wrong = [str(one) for one in listing if one.relative > _TOLERANCE]
    wrong += [f"gradient of {name}" for name, gradient in without.items() if gradient.any()]
    if wrong:
        raise TraceError(
            "forward branches on random numbers that determine more than which layers of a "
            f"ModuleList are skipped: {'; '.join(wrong[:_SHOWN])}. A graph would take the same "
            "branch at every step. Use torch.where with both results, or disable it (layerdrop=0)."
        )
