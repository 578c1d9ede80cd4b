"""Names of a component's tensors."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from medjax_torch.component_state.walk import Walk


def outermost(content: Walk) -> dict[str, nn.Module]:
    """Return the modules that are not part of another one, by path."""
    inner = {
        id(module)
        for _, outer in content.modules
        for module in outer.modules()
        if module is not outer
    }
    return {path: module for path, module in content.modules if id(module) not in inner}


def paths_of(
    modules: Mapping[str, nn.Module], content: Walk
) -> list[tuple[tuple[str, ...], Tensor]]:
    """Return every tensor with its names; tensors that torch registers in modules come first."""
    listed: dict[int, tuple[list[str], Tensor]] = {}

    def add(path: str, tensor: Tensor) -> None:
        names = listed.setdefault(id(tensor), ([], tensor))[0]
        if path not in names:
            names.append(path)

    for prefix, module in modules.items():
        for path, parameter in module.named_parameters(prefix, remove_duplicate=False):
            add(path, parameter)
        for path, buffer in module.named_buffers(prefix, remove_duplicate=False):
            add(path, buffer)
    registered = set(listed)
    for path, _, tensor in content.tensors:
        # Other places of registered tensors, such as `_flat_weights`, are not additional names.
        if id(tensor) not in registered:
            add(path, tensor)
    taken: set[str] = set()
    result = []
    for names, tensor in listed.values():
        # The keys 0 and "0" of a dict have the same path.
        while names[0] in taken:
            names[0] += "'"
        taken.add(names[0])
        result.append((tuple(names), tensor))
    return result
