"""Conversion of a traced optimizer's state between torch and JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medjax import sharding
from medjax_torch.component_state import to_numpy, to_torch
from medjax_torch.optimizers.entries import as_pair
from medjax_torch.optimizers.first_step import EntrySpec
from medjax_torch.optimizers.rule import Slots
from medjax_torch.optimizers.traced import UPDATED


def torch_entries(
    arrays: dict[str, np.ndarray], slots: dict[str, EntrySpec], parameter: torch.Tensor
) -> dict[str, Any]:
    """Return the torch state of a parameter; it is empty before the first update.

    Parameters
    ----------
    arrays : dict
        The arrays of the parameter's state in JAX, on the host.
    slots : dict
        The corresponding entries in torch.
    parameter : torch.Tensor
        The parameter, whose device the state gets.
    """
    if not arrays[UPDATED]:
        return {}
    written: dict[str, Any] = {}
    for entry, slot in slots.items():
        if slot.kind == "fixed":
            written[entry] = slot.start
        elif slot.kind == "tensor":
            device = parameter.device if slot.shape else torch.device("cpu")
            written[entry] = to_torch(arrays[entry]).to(dtype=slot.dtype, device=device)
        elif slot.kind == "int":
            written[entry] = int(arrays[entry])
        else:
            written[entry] = float(arrays[entry][0]) + float(arrays[entry][1])
    return written


def jax_slots(
    entries: dict[str, Any], slots: dict[str, EntrySpec], like: Slots, name: str
) -> Slots:
    """Return the JAX state of a parameter that torch has updated.

    Raises
    ------
    ValueError
        If an entry is missing or has another shape.
    """
    made: Slots = {UPDATED: sharding.put(np.int32(1), like[UPDATED].sharding)}
    for entry, slot in slots.items():
        if slot.kind == "fixed":
            continue
        value = entries.get(entry)
        shape = None if value is None else tuple(np.shape(value))
        if value is None or shape != slot.shape:
            msg = (
                f"{entry!r} of parameter {name} in the torch optimizer's state "
                f"{'is missing' if value is None else f'has shape {shape}'}; expected shape "
                f"{slot.shape}. Was it saved with different options?"
            )
            raise ValueError(msg)
        if slot.kind == "float":
            array = as_pair(float(value))
        else:
            # `astype` copies; otherwise JAX and torch might share the memory.
            array = to_numpy(torch.as_tensor(value)).astype(like[entry].dtype)
        made[entry] = sharding.put(array, like[entry].sharding)
    return made
