"""Saves and restores which parameters are trained, as this may change within a run.

If a run unfroze a layer in its third epoch, the layer stays unfrozen when the run is resumed,
whether or not the component was then created with the layer frozen.
"""

from __future__ import annotations

from typing import Any

from medjax.checkpoint.progress import Progress
from medjax_torch.conversion import ConvertedComponent

_KEY = "torch parameters"


def with_flags(progress: Progress, converted: ConvertedComponent) -> Progress:
    """Return `progress` with a record of which parameters are trained."""
    record = {
        "initial": list(converted.initially),
        "trained": list(converted.trained),
        "requiring": sorted(converted.variants.learning),
        "sometimes": sorted(converted.sometimes),
    }
    return progress._replace(settings={**progress.settings, _KEY: record})


def resume_flags(record: dict[str, Any], converted: ConvertedComponent) -> None:
    """Set ``requires_grad`` to its values at the time a checkpoint was saved.

    If the component's frozen parameters differ from those at the beginning of the saved run, it is
    left unchanged, because the difference is the user's own change.

    Parameters
    ----------
    record : dict
        The record of the checkpoint.
    converted : ConvertedComponent
        The component that continues the run.
    """
    saved = record["progress"].get("settings", {}).get(_KEY)
    if not saved or saved["initial"] != list(converted.initially):
        return
    converted.earlier = frozenset(saved["sometimes"])
    parameters = converted.inventory.parameters
    for which in ("trained", "requiring"):
        for name in saved["trained"]:
            if name in parameters:
                parameters[name].requires_grad_(name in saved[which])
        converted.refresh()
