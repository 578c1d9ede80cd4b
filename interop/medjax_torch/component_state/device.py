"""The device of a component's tensors: the CPU while JAX trains them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from medjax_torch.component_state.locations import Entry
from medjax_torch.component_state.walk import walk

CPU = torch.device("cpu")


@contextmanager
def on_host(component: Any, optimizer: Any) -> Iterator[None]:
    """Move a component to the CPU within the block, and back afterwards.

    Its tensors stay the same objects. The ``device`` attributes of its objects are set to the CPU
    meanwhile, so that tensors that forward moves go to the CPU too.

    Parameters
    ----------
    component : object
        The component.
    optimizer : object
        Its optimizer. The state that a torch optimizer has after the block is moved as well.
    """
    content = walk(component)
    names = [
        (location, location.get())
        for location in _device_locations(content.objects)
        if _is_elsewhere(location.get())
    ]
    moved = {id(t): (t, t.device) for _, _, t in content.tensors if _is_elsewhere(t.device)}
    if not names and not moved:
        yield
        return
    for location, _ in names:
        location.set(CPU)
    for tensor, _ in moved.values():
        tensor.data = tensor.data.to(CPU)
    try:
        yield
    finally:
        for tensor, device in moved.values():
            tensor.data = tensor.data.to(device)
            _move(getattr(optimizer, "state", {}).get(tensor, {}), device)
        for location, device in names:
            location.set(device)


def _device_locations(objects: list[tuple[str, Any]]) -> Iterator[Entry]:
    for _, holder in objects:
        attributes = getattr(holder, "__dict__", {})
        for name in ("device", "_device"):
            if name in attributes:
                yield Entry(attributes, name)


def _is_elsewhere(device: Any) -> bool:
    """Return whether a value means a device other than the CPU, which is -1 in transformers."""
    if isinstance(device, int) and not isinstance(device, bool):
        return device >= 0
    if not isinstance(device, str | torch.device):
        return False
    try:
        return torch.device(device).type not in ("cpu", "meta")
    except RuntimeError:
        return False  # a string that is not a device


def _move(state: dict[str, Any], device: torch.device) -> None:
    for name, value in state.items():
        if isinstance(value, Tensor) and value.ndim:
            state[name] = value.to(device)
