"""Which parameters are trained, from one run to the next: it may change within a run.

A run that unfroze a layer in its third epoch goes on with it unfrozen, whether or not the
component that resumes it was made with the layer frozen.
"""

from __future__ import annotations

from typing import Any

from medjax.checkpoint.progress import Progress
from medjax_torch.conversion import ConvertedComponent

_KEY = "torch parameters"


def with_flags(progress: Progress, converted: ConvertedComponent) -> Progress:
    """Return `progress` with what of the component is trained."""
    record = {
        "initial": list(converted.initially),
        "trained": list(converted.trained),
        "requiring": sorted(converted.variants.learning),
        "sometimes": sorted(converted.sometimes),
    }
    return progress._replace(settings={**progress.settings, _KEY: record})


def resume_flags(record: dict[str, Any], converted: ConvertedComponent) -> None:
    """Set ``requires_grad`` as it was when a checkpoint was saved.

    A component that is frozen otherwise than the one of the saved run was at its beginning is left
    as it is: that is what its user has changed.

    Parameters
    ----------
    record : dict
        Of the checkpoint.
    converted : ConvertedComponent
        The component that goes on.
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
